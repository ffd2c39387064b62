//! Archives and layers of a hostile hand.
