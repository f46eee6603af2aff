//! Media: files on their way to WeChat, and those that WeChat keeps for three days, a small CDN edge in front of them.
//!
//! Nothing here writes HTTP: an upload becomes a value or an error, a medium becomes what is known of it and its bytes.

mod cache;
mod download;
mod fill;
mod kind;
mod name;
mod query;
mod reply;
mod spool;
mod upload;
mod urls;

use std::sync::Arc;

pub(crate) use download::{Chunk, Downloads, Keep, Medium};
pub(crate) use query::{Repeated, text as parameter};
pub(crate) use reply::{Asked, Manner, Plan};
pub(crate) use upload::{Incoming, Received, Uploads};
pub(crate) use urls::{Signature, Urls, another_users};

use crate::config::Config;
use crate::gateway::{Gateway, Memory};
use crate::resilience::{BufferBudget, Buffered};

/// Media, as the configuration wants them dealt with.
pub(crate) struct Media {
    pub(crate) uploads: Uploads,
    pub(crate) downloads: Downloads,
    pub(crate) urls: Urls,
}

/// All bodies that are in memory, and how much of it there is for them.
#[derive(Clone, Debug)]
struct Room {
    budget: BufferBudget,
    limit: u64,
}

impl Room {
    fn buffer(&self) -> Buffered {
        self.budget.body(self.limit)
    }
}

impl Media {
    /// Media of the app that `config` is for; `None` if they are not to be dealt with.
    pub(crate) fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        wechat: &Memory,
        budget: &BufferBudget,
        keep: impl FnOnce() -> Arc<Keep>,
    ) -> Option<Self> {
        let room = Room {
            budget: budget.clone(),
            limit: config.inbound.buffer_limit,
        };
        config.media.enabled.then(|| Self {
            uploads: Uploads::new(config, Arc::clone(&gateway), room.clone()),
            downloads: Downloads::new(config, gateway, wechat, room, keep()),
            urls: Urls::new(config),
        })
    }
}
