//! Any bytes are a Docker `config.json`, or an error that shows nothing of a password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_client::Credentials;

fuzz_target!(|input: &[u8]| {
    match Credentials::from_docker_config(input) {
        Ok(credentials) => drop(format!("{credentials:?}")),
        Err(error) => drop(error.to_string()),
    }
});
