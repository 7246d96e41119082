//! Types of single values: durations, sizes, counts, addresses and fixed words, each with its parser, printer and schema. No
//! message repeats a value, which may be a misplaced secret.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::domain::duration;

/// Milliseconds in a second, and so on: the bounds of [`Span`].
pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
/// Bytes in a kibibyte, and so on: the bounds of [`Size`].
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// A length of time such as `30s`, from `MIN` to `MAX` milliseconds. For `#[serde(with)]` on a [`Duration`].
pub(super) struct Span<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let read = |text: &str| duration::parse(text).map(millis).map_err(|error| error.to_string());
        let write = |amount| duration::format(Duration::from_millis(amount));
        within(deserializer, read, write, MIN, MAX).map(Duration::from_millis)
    }

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&duration::format(*span))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Span<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["250ms", "30s", "5m", "24h", "30d"],
        })
    }
}

/// A number of bytes such as `16MiB`, from `MIN` to `MAX`. For `#[serde(with)]` on a `usize`.
pub(super) struct Size<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let bytes = within(deserializer, bytes, size, MIN, MAX)?;
        usize::try_from(bytes).map_err(|_| D::Error::custom("is more than this machine can address"))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&size(*bytes as u64))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Size<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "examples": ["512B", "256KiB", "16MiB", "1GiB"],
        })
    }
}

/// A whole number from `MIN` to `MAX`. For `#[serde(with)]` on any unsigned integer type that includes `MAX`.
pub(super) struct Count<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let number = Value::deserialize(deserializer)?.as_u64().filter(|n| (MIN..=MAX).contains(n));
        let number = number.and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| D::Error::custom(format_args!("must be a whole number from {MIN} to {MAX}")))
    }

    pub(super) fn serialize<S: Serializer, T: Serialize>(
        count: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        count.serialize(serializer)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Count<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// An address and port such as `127.0.0.1:8080`. For `#[serde(with)]` on a [`SocketAddr`].
pub(super) struct Address;

impl Address {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let address = Value::deserialize(deserializer)?.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| {
            D::Error::custom("must be an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080")
        })
    }

    pub(super) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        shown(address, serializer)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A time such as `2027-01-31T00:00:00Z`, or none. For `#[serde(with)]` on an optional [`Timestamp`].
pub(super) struct Moment;

impl Moment {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let moment = Value::deserialize(deserializer)?.as_str().and_then(|text| text.parse().ok());
        let message = "must be a date and time with its zone, such as 2027-01-31T00:00:00Z";
        moment.map(Some).ok_or_else(|| D::Error::custom(message))
    }

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(
        moment: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        moment.serialize(serializer)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Prints a value as its text. For `#[serde(serialize_with)]`.
pub(super) fn shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads a text with `read` and checks the result against its bounds, which `write` prints.
fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    read: impl FnOnce(&str) -> Result<u64, String>,
    write: impl Fn(u64) -> String,
    min: u64,
    max: u64,
) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let amount = read(value.as_str().unwrap_or_default()).map_err(D::Error::custom)?;
    if (min..=max).contains(&amount) {
        Ok(amount)
    } else {
        Err(D::Error::custom(format_args!("must be from {} to {}", write(min), write(max))))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a number of bytes. A number too large for a `u64` saturates; it is above every bound.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let read = text.split_at_checked(digits).and_then(|(number, unit)| {
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
        Some(number.parse::<u64>().ok()?.saturating_mul(*factor))
    });
    read.ok_or_else(|| "must be a size with its unit, such as 512B, 256KiB, 16MiB or 1GiB".to_owned())
}

/// Writes a number of bytes in the largest unit that gives a whole number.
fn size(bytes: u64) -> String {
    let fits = SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    let (unit, factor) = fits.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Defines an enum that is written as one of a few words. The last text is the message for anything else.
macro_rules! words {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? } else $message:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name { $($(#[$doc])* $variant),+ }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match <serde_json::Value as serde::Deserialize>::deserialize(deserializer)?.as_str() {
                    $(Some($word) => Ok(Self::$variant),)+
                    _ => Err(serde::de::Error::custom($message)),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
}
pub(super) use words;
