//! One value for each active client, dropped with its last reference.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::domain::principal::Principal;

/// The values by the name of the client, with a seed of this process.
#[derive(Debug)]
pub(in crate::inbound) struct ByClient<T>(Mutex<HashMap<Arc<str>, Weak<T>, foldhash::quality::RandomState>>);

impl<T> Default for ByClient<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByClient<T> {
    /// The value of a client. None for a local one.
    pub(in crate::inbound) fn of(&self, client: &Principal, new: impl FnOnce() -> T) -> Option<Arc<T>> {
        if client.is_local() {
            return None;
        }
        let name = client.shared_name();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = held.get(name).and_then(Weak::upgrade) {
            return Some(value);
        }
        if held.len() == held.capacity() {
            // before it grows: remove those without a reference
            held.retain(|_, value| value.strong_count() > 0);
        }
        let value = Arc::new(new());
        held.insert(Arc::clone(name), Arc::downgrade(&value));
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_value_is_shared_until_its_last_holder_drops_it() {
        let clients = ByClient::default();
        let client = |name: &str| Principal::new(name, []);
        let held = clients.of(&client("a"), || 1).unwrap();
        assert_eq!(clients.of(&client("a"), || 2).as_deref(), Some(&1));
        assert_eq!(clients.of(&client("b"), || 2).as_deref(), Some(&2));
        assert_eq!(clients.of(&Principal::local(), || 3), None);
        drop(held);
        assert_eq!(clients.of(&client("a"), || 4).as_deref(), Some(&4));
        for number in 0..1000 {
            drop(clients.of(&client(&number.to_string()), || 5));
        }
        assert!(clients.0.lock().unwrap().len() < 100);
    }
}
