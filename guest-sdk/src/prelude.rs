//! What nearly every guest needs: `use cellule_guest::prelude::*;`.
//!
//! The attributes, the types of `alloc` that std's prelude would bring, serde's
//! traits and derives, the macros of [`log`], and of tasks what is in the signature
//! of nearly everything: [`spawn`], [`Timeout`] and [`Duration`]. The primitives are
//! not here: which of them a guest is built on is worth a line of its own, and
//! `Mutex`, `Queue` or `Timer` are names that others use too.
//!
//! To derive `Serialize` and `Deserialize`, either depend on `serde` too, or say
//! where it is:
//!
//! ```
//! use cellule_guest::prelude::*;
//!
//! #[derive(Serialize, Deserialize, Schema)]
//! #[serde(crate = "cellule_guest::serde")]
//! struct Point { x: f64, y: f64 }
//!
//! #[guest_function]
//! fn mirror(point: Point) -> Point {
//!     Point { x: -point.x, y: point.y }
//! }
//! # assert_eq!(mirror(Point { x: 1.0, y: 2.0 }).x, -1.0);
//! ```

pub use alloc::borrow::{Cow, ToOwned};
pub use alloc::boxed::Box;
pub use alloc::string::{String, ToString};
pub use alloc::vec::Vec;
pub use alloc::{format, vec};

pub use log::{debug, error, info, trace, warn};
pub use serde::{Deserialize, Serialize};

pub use crate::task::spawn;
pub use crate::time::{Duration, Timeout};
pub use crate::{HostError, Schema, guest_function, host_function};
