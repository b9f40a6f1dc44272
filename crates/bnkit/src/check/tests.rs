//! Each rule with a model that trips it and one that does not.
