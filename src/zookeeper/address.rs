//! Which znode is meant: `zookeeper://user:password@host:2181,host2/path`.
//!
//! User and password are decoded as in any URL; the path is taken as it stands, because ZooKeeper knows no escapes. No
//! message repeats what stood where a password may stand, also when a `/` in it has put it where a port should be.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// What marks a place as a znode and not a file.
pub const SCHEME: &str = "zookeeper://";
const DEFAULT_PORT: u16 = 2181;

/// A node of ZooKeeper that holds a configuration, and how to get to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    pub(super) credentials: Option<Credentials>,
    pub(super) servers: Vec<Server>,
    pub(super) path: String,
}

/// Who we are to ZooKeeper, by its scheme `digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Znode {
    /// Reads `zookeeper://[user:password@]host[:port][,host[:port]]/znode/path`. The message is for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| format!("it does not begin with `{SCHEME}`"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(Credentials::parse(credentials)?), hosts),
            None => (None, authority),
        };
        let servers = hosts.split(',').map(Server::parse);
        let servers = servers.collect::<Result<_, _>>()?;
        check_path(path)?;
        Ok(Self {
            credentials,
            servers,
            path: path.to_owned(),
        })
    }

    /// The path of the znode, such as `/apps/shop/sidecar.toml`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a user is named. What is created without one can be read and changed by all who reach ZooKeeper.
    pub fn has_user(&self) -> bool {
        self.credentials.is_some()
    }
}

impl fmt::Display for Znode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        if let Some(credentials) = &self.credentials {
            write!(f, "{}:***@", credentials.user)?;
        }
        for (number, server) in self.servers.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
        }
        f.write_str(&self.path)
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text
            .split_once(':')
            .ok_or("before `@` stands a user without a password; write `user:password@`")?;
        let decode = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(String::from).map_err(|_| {
                "the user or the password is not UTF-8 once its %XX are decoded".to_owned()
            })
        };
        let (user, password) = (decode(user)?, decode(password)?);
        if user.is_empty() || password.is_empty() {
            return Err(
                "before `@` both a user and a password are expected: `user:password@`".into(),
            );
        }
        if user.contains(':') {
            return Err("the user has a `:` in it, which ZooKeeper takes for its end".into());
        }
        Ok(Self {
            user,
            password: Secret::new(password),
        })
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest
                    .split_once(']')
                    .ok_or("an address that begins with `[` does not end with `]`")?;
                address
                    .parse::<Ipv6Addr>()
                    .map_err(|_| "between `[` and `]` stands no IPv6 address")?;
                (address, port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (host, port) = text.split_at(end);
                check_host(host, port)?;
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => parse_port(host, digits)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err("after `]` a `:` and a port are expected, or nothing".into()),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn check_host(host: &str, after: &str) -> Result<(), String> {
    if host.is_empty() && after.starts_with("::") || after.matches(':').count() > 1 {
        return Err("an IPv6 address must stand in brackets, as in `[::1]:2181`".into());
    }
    if host.is_empty() {
        return Err(format!(
            "a server is missing; write `{SCHEME}host:2181,host2:2181/path`"
        ));
    }
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !host.chars().all(of_a_name) {
        return Err(
            "a server's name has a character that no name has; in a user or password write `@`, `/` and `,` as %40, \
             %2F and %2C"
                .into(),
        );
    }
    Ok(())
}

fn parse_port(host: &str, digits: &str) -> Result<u16, String> {
    let port = digits.parse().ok().filter(|port| *port != 0);
    port.filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| {
            format!(
                "what follows `{host}:` is no port, which is a number from 1 to 65535; if it is a part of a password, \
                 write its `/` as %2F"
            )
        })
}

fn check_path(path: &str) -> Result<(), String> {
    if path.len() < 2 {
        return Err(format!(
            "the path of the znode is missing; write `{SCHEME}host:2181/path/of/the/znode`"
        ));
    }
    if path.ends_with('/') {
        return Err("the path ends with `/`, which no znode's does".into());
    }
    let odd = |part: &str| matches!(part, "" | "." | "..");
    if path[1..].split('/').any(odd) {
        return Err(
            "the path has an empty part, `.` or `..`, which ZooKeeper does not know".into(),
        );
    }
    if path.chars().any(char::is_control) {
        return Err("the path has a control character".into());
    }
    if path.starts_with("/zookeeper/") || path == "/zookeeper" {
        return Err("what lies under /zookeeper is ZooKeeper's own".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_user_and_path_are_told_apart() {
        let text = "zookeeper://shop:p%40ss%2F%3aword@zk-0.zk:2182,10.0.0.1,[::1]:99,[fe80::2]/apps/shop@1:x";
        let znode = Znode::parse(text).unwrap();
        let credentials = znode.credentials.as_ref().unwrap();
        assert_eq!(credentials.user, "shop");
        assert_eq!(credentials.password.expose(), "p@ss/:word");
        assert_eq!(
            znode.to_string(),
            "zookeeper://shop:***@zk-0.zk:2182,10.0.0.1:2181,[::1]:99,[fe80::2]:2181/apps/shop@1:x"
        );
        assert_eq!(znode.path(), "/apps/shop@1:x");
        assert!(znode.has_user());
        assert!(!format!("{znode:?}").contains("p@ss"));
    }

    #[test]
    fn a_user_is_not_needed() {
        let znode = Znode::parse("zookeeper://zk/a").unwrap();
        assert_eq!(znode.to_string(), "zookeeper://zk:2181/a");
        assert!(!znode.has_user());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        let cases = [
            ("/etc/sidecar.toml", "does not begin with"),
            ("zookeeper://", "a server is missing"),
            ("zookeeper:///a", "a server is missing"),
            ("zookeeper://zk,/a", "a server is missing"),
            ("zookeeper://zk,,zk2/a", "a server is missing"),
            ("zookeeper://:2181/a", "a server is missing"),
            ("zookeeper://zk", "path of the znode is missing"),
            ("zookeeper://zk/", "path of the znode is missing"),
            ("zookeeper://zk/a/", "ends with `/`"),
            ("zookeeper://zk/a//b", "empty part"),
            ("zookeeper://zk/a/../b", "`..`"),
            ("zookeeper://zk/a\n", "control character"),
            ("zookeeper://zk/zookeeper/config", "ZooKeeper's own"),
            ("zookeeper://zk:/a", "is no port"),
            ("zookeeper://zk:0/a", "is no port"),
            ("zookeeper://zk:65536/a", "is no port"),
            ("zookeeper://zk:+1/a", "is no port"),
            ("zookeeper://::1/a", "in brackets"),
            ("zookeeper://fe80::1/a", "in brackets"),
            ("zookeeper://[::1/a", "does not end with `]`"),
            ("zookeeper://[zk]/a", "no IPv6 address"),
            ("zookeeper://[::1]2181/a", "after `]`"),
            ("zookeeper://z k/a", "no name has"),
            ("zookeeper://user@zk/a", "without a password"),
            ("zookeeper://:word@zk/a", "both a user and a password"),
            ("zookeeper://user:@zk/a", "both a user and a password"),
            ("zookeeper://us%3Aer:word@zk/a", "has a `:` in it"),
            ("zookeeper://user:%ff@zk/a", "not UTF-8"),
        ];
        for (text, reason) in cases {
            let message = Znode::parse(text).expect_err(text);
            assert!(message.contains(reason), "{text}: {message}");
        }
    }

    #[test]
    fn no_message_repeats_a_password_that_was_not_encoded() {
        for text in [
            "zookeeper://user:hun/ter2@zk:2181/a",
            "zookeeper://user:hun@ter2@zk:x/a",
            "zookeeper://user:hun,ter2/@zk:2181/a",
            "zookeeper://user:hun%ffter2@zk:2181/a",
            "zookeeper://us er:hun[ter2:x:y@[zk/a",
        ] {
            let message = Znode::parse(text).expect_err(text);
            assert!(
                !message.contains("hun") && !message.contains("ter2"),
                "{message}"
            );
        }
    }
}
