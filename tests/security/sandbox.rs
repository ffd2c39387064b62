//! What a RUN may do to the machine that it runs on.
