//! Media: files on their way to WeChat, and those that WeChat keeps for three days, a small CDN edge in front of them.
//!
//! Nothing here writes HTTP: an upload becomes a value or an error, a medium becomes what is known of it and its bytes.

mod kind;
mod name;
mod spool;
mod upload;

use std::sync::Arc;

use crate::config::Config;
use crate::gateway::Gateway;

pub(crate) use upload::{Incoming, Received, Uploads};

/// Media, as the configuration wants them dealt with.
pub(crate) struct Media {
    pub(crate) uploads: Uploads,
}

impl Media {
    /// Media of the app that `config` is for; `None` if they are not to be dealt with.
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>) -> Option<Self> {
        config.media.enabled.then(|| Self {
            uploads: Uploads::new(config, gateway),
        })
    }
}
