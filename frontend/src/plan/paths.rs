//! Paths as text: cleaned and joined without looking at any file.

/// Makes `path` absolute and resolves `.` and `..`; the root is its own parent.
pub(crate) fn clean(path: &str) -> String {
    format!("/{}", below_root(path))
}

/// As [`clean`], relative to the root: `/` is the empty path.
pub(crate) fn below_root(path: &str) -> String {
    let mut parts = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Resolves `path` against the directory `dir`.
pub(crate) fn join(dir: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{dir}/{path}")) }
}

/// Resolves the destination of COPY and ADD; it ends in `/` where it must be a directory.
pub(crate) fn destination(workdir: &str, dest: &str) -> String {
    let joined = join(workdir, dest);
    let is_directory = matches!(dest, "" | ".") || dest.ends_with('/') || dest.ends_with("/.");
    if is_directory && joined != "/" { joined + "/" } else { joined }
}

/// The last segment; `/` for the root.
pub(crate) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_root() {
        for (path, cleaned) in
            [("../x", "/x"), ("a/./b//c/..", "/a/b"), ("", "/"), ("/..", "/"), ("x/", "/x")]
        {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn a_destination_keeps_the_slash_that_makes_it_a_directory() {
        for (dest, resolved) in [
            ("x", "/w/x"),
            ("x/", "/w/x/"),
            ("x/.", "/w/x/"),
            (".", "/w/"),
            ("./", "/w/"),
            ("", "/w/"),
            ("/", "/"),
            ("..", "/"),
            ("/a/../b/", "/b/"),
        ] {
            assert_eq!(destination("/w", dest), resolved, "{dest}");
        }
    }

    #[test]
    fn the_base_name_ignores_trailing_slashes() {
        assert_eq!((base_name("/a/b/"), base_name("/"), base_name("c")), ("b", "/", "c"));
    }
}
