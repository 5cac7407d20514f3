//! Embeddable micro-VM sandboxes: load a guest image, call its functions.
