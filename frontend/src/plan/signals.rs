//! What STOPSIGNAL accepts.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` is a Linux signal: any number but 0, or a name in any case, with or without
/// `SIG`.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u32| {
        let digits = name.strip_prefix(prefix)?;
        let plain = !digits.starts_with('0') && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|offset| plain && *offset <= most)
    };
    NAMES.contains(&name) || offset("RTMIN+", 15).or(offset("RTMAX-", 14)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for signal in ["SIGKILL", "kill", "9", "99", "RTMIN+3", "SIGRTMAX-14", "sigterm"] {
            assert!(is_signal(signal), "{signal}");
        }
        for other in ["FOO", "0", "", "RTMIN+16", "RTMAX-15", "RTMIN+03", "SIG"] {
            assert!(!is_signal(other), "{other}");
        }
    }
}
