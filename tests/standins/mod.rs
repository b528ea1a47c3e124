//! Stand-ins for council systems: they speak the real protocols over real sockets and keep to the documented behaviour,
//! error codes and authentication, not to what is convenient for the bridge. For the tests and the demo; no part of
//! the program.

pub mod bank;
pub mod http;
pub mod ims;
pub mod pay;
pub mod scp;
