"""Which features an answer depends on."""
