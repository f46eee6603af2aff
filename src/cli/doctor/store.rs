//! The store that replicas share: does it answer, and does it forget?

use super::Findings;
use crate::config::{Config, Store};

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    match &config.store {
        Store::Memory => {
            findings.unknown(
                "Redis",
                "none is configured; what is revoked is known to one process",
            );
        }
        #[cfg(feature = "redis")]
        Store::Redis(redis) => redis::examine(redis, findings).await,
    }
}

#[cfg(feature = "redis")]
mod redis {
    use super::Findings;
    use crate::config::{Redis, RedisMode, RedisPlace};
    use crate::redis_link::{self, Examined};

    /// What keeps all until it ends by itself.
    const KEEPS: &str = "noeviction";

    pub(super) async fn examine(redis: &Redis, findings: &mut Findings) {
        let name = format!("Redis at {}", places(redis));
        match redis_link::examine(redis).await {
            Ok(examined) => judge(name, redis, &examined, findings),
            Err(why) => findings.bad(
                name,
                why,
                "see [store] url, its user and password, and whether this machine may connect there",
            ),
        }
    }

    fn judge(name: String, redis: &Redis, examined: &Examined, findings: &mut Findings) {
        match &examined.policy {
            Some(policy) if policy != KEEPS && examined.is_limited => findings.doubtful(
                name,
                format!("it answers, and may throw away what it was told to keep (maxmemory-policy {policy}): what was revoked would be good again"),
                format!("CONFIG SET maxmemory-policy {KEEPS}, and in redis.conf, or a Redis of its own"),
            ),
            Some(policy) if policy != KEEPS => findings.good(
                name,
                format!("it answers; nothing is thrown away (maxmemory-policy {policy}, without a maxmemory)"),
            ),
            Some(_) => findings.good(name, "it answers, and throws nothing away"),
            None if redis.mode == RedisMode::Cluster => {
                findings.good(name, format!("it answers; see that each node has maxmemory-policy {KEEPS}"));
            }
            None => findings.good(name, format!("it answers; it does not tell its maxmemory-policy, which should be {KEEPS}")),
        }
    }

    /// Where it is, without users and passwords.
    fn places(redis: &Redis) -> String {
        let places = redis.nodes.iter().map(|node| match &node.place {
            RedisPlace::Tcp { host, port } => format!("{host}:{port}"),
            RedisPlace::Unix(path) => format!("unix:{}", path.display()),
        });
        places.collect::<Vec<_>>().join(", ")
    }
}
