//! Floor 4: the roads out. Each module implements a port; none of them sees a door in or a use case.

pub mod credentials;

pub mod identity;
