//! Who may own and write a store.
