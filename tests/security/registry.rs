//! Registries of a hostile hand.
