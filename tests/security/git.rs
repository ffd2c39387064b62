//! Git repositories and URLs: nothing of the caller leaks into them, nothing of theirs leads out.
