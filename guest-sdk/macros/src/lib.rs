//! The attributes of cellule-guest.
