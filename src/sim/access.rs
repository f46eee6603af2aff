//! Who may call what, beyond having the right credentials: the addresses that get access_tokens (the white-list at
//! mp.weixin.qq.com), and the APIs that are withheld from the apps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::refusal::{Refusal, Refused};

/// Both, for all apps.
#[derive(Default)]
pub(super) struct Access {
    /// Every address gets an access_token if there are none.
    white_list: Option<BTreeSet<IpAddr>>,
    withheld: BTreeSet<String>,
}

impl Access {
    /// From now on only these addresses get access_tokens; `None` for all of them.
    pub(super) fn allow_only(&mut self, addresses: Option<&[IpAddr]>) {
        let canonical = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_canonical).collect();
        self.white_list = addresses.map(canonical);
    }

    /// Withholds an API from the apps, or grants it again.
    pub(super) fn grant(&mut self, path: &str, granted: bool) {
        if granted {
            self.withheld.remove(path);
        } else {
            self.withheld.insert(path.to_owned());
        }
    }

    pub(super) fn white_list(&self) -> Option<&BTreeSet<IpAddr>> {
        self.white_list.as_ref()
    }

    pub(super) fn withheld(&self) -> &BTreeSet<String> {
        &self.withheld
    }

    /// Whether a caller at this address gets an access_token.
    pub(super) fn check_address(&self, peer: IpAddr) -> Result<(), Refused> {
        let peer = peer.to_canonical();
        match &self.white_list {
            Some(known) if !known.contains(&peer) => {
                let as_ipv6 = match peer {
                    IpAddr::V4(peer) => peer.to_ipv6_mapped(),
                    IpAddr::V6(peer) => peer,
                };
                let errmsg = format!("invalid ip {peer} ipv6 {as_ipv6}, not in whitelist");
                Err(Refusal::AddressRefused.saying(errmsg))
            }
            _ => Ok(()),
        }
    }

    /// Whether apps have this API.
    pub(super) fn check_path(&self, path: &str) -> Result<(), Refusal> {
        match self.withheld.contains(path) {
            true => Err(Refusal::Unauthorized),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_the_same_in_both_of_its_forms() {
        let mut access = Access::default();
        assert_eq!(access.check_address(address("1.2.3.4")), Ok(()));
        access.allow_only(Some(&[address("::ffff:1.2.3.4"), address("2001:db8::1")]));
        for good in ["1.2.3.4", "::ffff:1.2.3.4", "2001:db8::1"] {
            assert_eq!(access.check_address(address(good)), Ok(()), "{good}");
        }
        access.allow_only(None);
        assert_eq!(access.check_address(address("1.2.3.5")), Ok(()));
    }

    #[test]
    fn a_caller_that_is_not_on_the_list_is_told_its_address() {
        let mut access = Access::default();
        access.allow_only(Some(&[]));
        for (peer, said) in [
            (
                "1.2.3.4",
                "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist",
            ),
            (
                "2001:db8::1",
                "invalid ip 2001:db8::1 ipv6 2001:db8::1, not in whitelist",
            ),
        ] {
            let refused = access.check_address(address(peer)).unwrap_err();
            assert_eq!(refused.refusal.errcode(), 40164);
            assert_eq!(refused.errmsg, said);
        }
    }

    #[test]
    fn an_api_is_withheld_until_it_is_granted_again() {
        let mut access = Access::default();
        access.grant("/wxa/getwxacode", false);
        assert_eq!(
            access.check_path("/wxa/getwxacode"),
            Err(Refusal::Unauthorized)
        );
        assert_eq!(access.check_path("/wxa/getwxacodeunlimit"), Ok(()));
        access.grant("/wxa/getwxacode", true);
        assert_eq!(access.check_path("/wxa/getwxacode"), Ok(()));
    }
}
