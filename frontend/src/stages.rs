//! Names, ARG scopes, the target and what it reaches.
