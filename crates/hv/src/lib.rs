//! What any hypervisor must do for Cellule, and the suite that checks it.
