//! The one integration-test binary: each file below is a part of it, so that the house is linked once.

mod architecture;
mod lookup;
mod schema;
mod support;
