//! What a RUN prints, and what must not be printed.
