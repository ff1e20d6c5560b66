//! Values that conditions compare: decimals, times, networks.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::time::UtcMillis;

/// Maximum number of digits after the point. A longer number is rejected, not rounded.
const FRACTION_DIGITS: usize = 9;
/// Maximum number of digits before the point: 10^27 units are far below the range of 128 bits.
const INTEGER_DIGITS: usize = 18;

/// An exact decimal number: object sizes are compared to the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decimal(i128);

impl Decimal {
    pub(super) const ALLOWED: &'static str =
        "a number with up to 18 digits before and 9 after the point";

    /// Parses a number such as `10`, `-1` or `2.50`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |digits: &str, max| {
            (1..=max).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        };
        if !is_number(integer, INTEGER_DIGITS) || !is_number(fraction, FRACTION_DIGITS) {
            return None;
        }
        debug_assert!(fraction.len() <= FRACTION_DIGITS, "longer fractions are refused");
        let zeros = FRACTION_DIGITS - fraction.len();
        let digits =
            integer.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', zeros));
        Some(Self(sign * digits.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))))
    }

    /// Converts a time to seconds since 1970.
    pub(super) fn of_time(time: UtcMillis) -> Self {
        const UNITS_PER_MILLISECOND: i128 = 10_i128.pow(FRACTION_DIGITS as u32) / 1_000;
        Self(i128::from(time.get()) * UNITS_PER_MILLISECOND)
    }
}

pub(super) const DATE_ALLOWED: &str =
    "a time such as \"2026-01-31T12:00:00Z\", a date such as \"2026-01-31\", or seconds since 1970";

/// Parses a time. A date means its first moment in UTC.
pub(super) fn parse_date(text: &str) -> Option<UtcMillis> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(UtcMillis::new(time.timestamp_millis()));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(UtcMillis::new(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis()));
    }
    let seconds: i64 = text.parse().ok()?;
    seconds.checked_mul(1_000).map(UtcMillis::new)
}

/// An address, or all addresses with a common prefix. IPv4-mapped IPv6 is treated as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    pub(super) const ALLOWED: &'static str =
        "an address such as \"10.1.2.3\", or a network such as \"10.0.0.0/8\" or \"fd00::/8\"";

    /// Parses an address or network.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((_, bits)) if bits.starts_with('+') => return None,
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        };
        let written: IpAddr = address.parse().ok()?;
        let address = written.to_canonical();
        let (width, skipped) = match (written, address) {
            (IpAddr::V6(_), IpAddr::V4(_)) => (32, 96),
            (_, IpAddr::V4(_)) => (32, 0),
            (_, IpAddr::V6(_)) => (128, 0),
        };
        let prefix_bits = match prefix {
            None => width,
            // A prefix within the 96 bits of the IPv4 mapping would cover more than all of IPv4.
            Some(bits) => bits.checked_sub(skipped)?,
        };
        (prefix_bits <= width).then_some(Self { address, prefix_bits })
    }

    /// Returns whether the network contains an address.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Parses `true` or `false`, in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_decimals_are_exact() {
        let number = |text| Decimal::parse(text).unwrap();
        assert_eq!(number("10"), number("+010.000"));
        assert!(number("9007199254740993") > number("9007199254740992"), "which a double is not");
        assert!(number("-1.5") < number("-1.4"));
        assert!(number("0.000000001") > number("0"));
        assert_eq!(Decimal::of_time(UtcMillis::new(-1_500)), number("-1.5"));
        for wrong in ["", "-", ".", "1.", ".5", "1e3", "0x1", " 1", "--1", "1.0000000000"] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Decimal::parse("1234567890123456789"), None);
    }

    #[test]
    fn b61_times_have_three_notations() {
        let noon = Some(UtcMillis::new(1_769_860_800_000));
        assert_eq!(parse_date("2026-01-31T12:00:00Z"), noon);
        assert_eq!(parse_date("2026-01-31T13:30:00.000+01:30"), noon);
        assert_eq!(parse_date("1769860800"), noon);
        assert_eq!(parse_date("2026-01-31"), Some(UtcMillis::new(1_769_817_600_000)));
        let wrong = ["", "2026-02-30", "2026-01-31T25:00:00Z", "noon", "9223372036854775807"];
        for wrong in wrong {
            assert_eq!(parse_date(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn b61_network_contains_addresses_with_its_prefix() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.2"));
        assert!(holds("10.1.2.3/8", "10.9.9.9"), "bits beyond the prefix do not matter");
        assert!(holds("0.0.0.0/0", "255.255.255.255") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"), "IPv4 in IPv6");
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
        let wrong =
            ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "::ffff:0:0/95"];
        for wrong in wrong {
            assert_eq!(Network::parse(wrong), None, "{wrong:?}");
        }
    }
}
