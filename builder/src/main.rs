//! The command `rbuild`.

use std::process::ExitCode;

// musl's own allocator makes two threads wait for each other.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    builder::sandbox::keep_descriptors();
    builder::sandbox::hear_of_children();
    builder::sandbox::init_if_asked();
    builder::sandbox::survive_file_size_limits();
    builder::cli::main()
}
