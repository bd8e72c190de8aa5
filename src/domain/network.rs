//! Networks: ranges of IP addresses, as lists of trusted proxies and of allowed clients name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Bits before the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_BITS: u8 = 96;

/// A range of addresses: those whose first bits are the same. An IPv4 address that is written as an IPv6 one
/// (`::ffff:10.0.0.1`) is the IPv4 address, here and in what is compared with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    /// Its first address: all bits behind `bits` are zero.
    first: IpAddr,
    /// How many bits count.
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFault {
    /// No address, or no length after the slash.
    #[error("`{0}` is not a network; write an address or a range, as in `192.0.2.7`, `10.0.0.0/8` or `2001:db8::/32`")]
    Malformed(String),
    /// A length that such an address does not have.
    #[error("`{text}` counts more bits than its address has; write at most `/{max}`")]
    TooLong {
        /// What was written.
        text: String,
        /// The most.
        max: u8,
    },
    /// Bits behind the length: a typo in one or the other.
    #[error("`{text}` has bits behind its length; write `{network}`, or another length")]
    BitsBehind {
        /// What was written.
        text: String,
        /// The network that it lies in.
        network: Network,
    },
}

impl Network {
    /// Reads `address` or `address/bits`.
    ///
    /// # Errors
    /// See [`NetworkFault`].
    pub fn new(text: &str) -> Result<Self, NetworkFault> {
        let malformed = || NetworkFault::Malformed(text.to_owned());
        let (address, length) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match length {
            None => max,
            Some(digits) => {
                let plain = matches!(digits.len(), 1..=3) && digits.bytes().all(|digit| digit.is_ascii_digit());
                let leading_zero = digits.len() > 1 && digits.starts_with('0');
                let bits = digits.parse::<u16>().ok().filter(|_| plain && !leading_zero).ok_or_else(malformed)?;
                u8::try_from(bits).unwrap_or(u8::MAX) // too long in any case
            }
        };
        if bits > max {
            return Err(NetworkFault::TooLong { text: text.to_owned(), max });
        }
        let mapped = address.is_ipv6() && bits >= MAPPED_BITS && address.to_canonical().is_ipv4();
        let (address, bits) = if mapped { (address.to_canonical(), bits - MAPPED_BITS) } else { (address, bits) };
        let network = Self { first: masked(address, bits), bits };
        if network.first != address {
            return Err(NetworkFault::BitsBehind { text: text.to_owned(), network });
        }
        Ok(network)
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }
}

/// An address with all bits behind the first ones zero.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// Whether an address lies in one of the networks.
pub fn any_contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = if self.first.is_ipv4() { 32 } else { 128 };
        if self.bits == max { write!(f, "{}", self.first) } else { write!(f, "{}/{}", self.first, self.bits) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkFault;

    fn try_from(text: String) -> Result<Self, NetworkFault> {
        Self::new(&text)
    }
}

/// The header in which proxies say whom they speak for. Which one is the operator's word: a proxy that writes one of them
/// hands the other on as its client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, address: &str, inside: bool) {
        let network = Network::new(network).unwrap();
        assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
    }

    #[test]
    fn a_range_holds_the_addresses_with_its_bits() {
        check("10.0.0.0/8", "10.0.0.0", true);
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "9.255.255.255", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("192.0.2.6/31", "192.0.2.7", true);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "192.0.2.7", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("2001:db8::/32", "2001:db9::", false);
        check("::1", "::1", true);
        check("::1/128", "::", false);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "::ffff:11.1.2.3", false);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:192.0.2.7", "192.0.2.7", true);
        assert_eq!(Network::new("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(Network::new("::ffff:0.0.0.0/96").unwrap().to_string(), "0.0.0.0/0");
        check("::/0", "::ffff:10.1.2.3", false);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/ 8",
            "10.0.0.0 /8",
            " 10.0.0.0",
            "10.0.0.0/8/8",
            "10.0.0.0/-1",
            "10.0.0.0/8.0",
            "host",
            "fe80::1%eth0",
            "[::1]",
            "::1/0128",
            "10.0.0.0-10.0.0.9",
            "10.*",
            "10.0.0.0/1000",
        ] {
            assert!(matches!(Network::new(bad), Err(NetworkFault::Malformed(_))), "{bad:?}: {:?}", Network::new(bad));
        }
        for bad in ["10.0.0.0/33", "::/129", "10.0.0.0/255", "10.0.0.0/999"] {
            assert!(matches!(Network::new(bad), Err(NetworkFault::TooLong { .. })), "{bad:?}");
        }
        let fault = Network::new("10.1.2.3/8").unwrap_err().to_string();
        assert!(fault.contains("write `10.0.0.0/8`"), "{fault}");
        assert!(Network::new("2001:db8::1/64").is_err());
        assert!(Network::new("::ffff:10.1.2.3/104").is_err());
    }

    #[test]
    fn a_network_reads_back_what_it_prints() {
        for text in ["10.0.0.0/8", "192.0.2.7", "::/0", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            let network = Network::new(text).unwrap();
            assert_eq!(network.to_string(), text);
            let json = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        }
    }
}
