//! Contexts and Dockerfiles of a hostile hand.
