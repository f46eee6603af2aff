//! Media on their way from WeChat.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::MediaId;
use crate::error::{Error, Kind};

pub(crate) struct Downloads;

pub(crate) struct Medium {
    pub(crate) facts: Facts,
}

pub(crate) struct Facts {
    pub(crate) content_type: &'static str,
    pub(crate) length: Option<u64>,
    pub(crate) etag: String,
    pub(crate) name: Option<String>,
    pub(crate) age: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) found: Found,
    pub(crate) stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Hit,
    Miss,
    Collapsed,
}

pub(crate) enum Chunk {
    Bytes(Bytes),
    File {
        file: Arc<File>,
        at: u64,
        length: u64,
    },
    End,
}

impl Downloads {
    pub(crate) async fn open(&self, _id: &MediaId) -> Result<Medium, Error> {
        Err(Error::downstream(Kind::NotImplemented, "not yet"))
    }
}

impl Medium {
    pub(crate) async fn read(&self, _at: u64) -> Result<Chunk, Error> {
        Ok(Chunk::End)
    }
}
