//! Networks in CIDR notation.

use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::digits::digits;

/// One network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the network contains the address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                // Shifting by the whole width overflows: a prefix of 0 contains everything.
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// `address/prefix`; an address alone is a network of one. No bit behind the prefix may be set, because then either
    /// the address or the prefix is a mistake.
    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "networks such as 10.0.0.0/8 or fd00::/8, comma-separated".to_owned();
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| allowed())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => {
                let prefix = digits(prefix).and_then(|prefix| u8::try_from(prefix).ok());
                prefix.filter(|prefix| *prefix <= width).ok_or_else(allowed)?
            }
        };
        if address.to_canonical() != address {
            return Err(format!("{} (IPv4 networks in IPv4 notation)", allowed()));
        }
        let behind_prefix = match address {
            IpAddr::V4(address) => u128::from(address.to_bits().checked_shl(u32::from(prefix)).unwrap_or(0)),
            IpAddr::V6(address) => address.to_bits().checked_shl(u32::from(prefix)).unwrap_or(0),
        };
        if behind_prefix != 0 {
            return Err(format!("{} ({text} has bits set after its prefix)", allowed()));
        }
        Ok(Self { address, prefix })
    }
}

/// Any number of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrList(Vec<Cidr>);

impl CidrList {
    /// Whether one of the networks contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there is no network at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for CidrList {
    type Err = String;

    /// Networks, comma-separated.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|network| !network.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<CidrList>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
            (" 10.0.0.0/8 , ::1 ", "::1", "::2"),
        ] {
            assert!(holds(network, inside), "{network} holds {inside}");
            assert!(!holds(network, outside), "{network} does not hold {outside}");
        }
    }

    #[test]
    fn no_network_holds_nothing() {
        assert!("".parse::<CidrList>().unwrap().is_empty());
        assert!(!holds("", "127.0.0.1"));
    }

    #[test]
    fn an_invalid_network_range_is_refused() {
        for wrong in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "example.org",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/104",
            "fd00::1/64",
            "0.0.0.1/0",
        ] {
            assert!(wrong.parse::<CidrList>().is_err(), "{wrong}");
        }
    }
}
