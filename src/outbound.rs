//! Floor 4: the roads out. Implements what `ports` asks for; never calls back up, never meets a door in.

pub mod gate;
pub mod http;
pub mod source;
#[cfg(test)]
mod testing;
pub mod upstreams;
