//! Without the feature `redis` there is no such store, and the configuration cannot ask for it.

use std::time::Duration;

use super::{Claimed, CodeHash, Health, KeyRing, Spent, Unavailable};
use crate::clock::Timestamp;
use crate::config;
use crate::domain::{OpenId, SessionKey};
use crate::session::Granted;
use crate::session::token::{Claims, SessionId};

pub(crate) enum RedisStore {}

impl RedisStore {
    pub(super) async fn keep(&self) {
        match *self {}
    }

    pub(super) fn rekey(&self, _: &config::Config) {
        match *self {}
    }

    pub(super) fn health(&self) -> Health {
        match *self {}
    }

    pub(super) async fn claim_login(
        &self,
        _: &CodeHash,
        _: Duration,
    ) -> Result<Claimed, Unavailable> {
        match *self {}
    }

    pub(super) async fn remember_login(
        &self,
        _: &CodeHash,
        _: &Granted,
    ) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn release_login(&self, _: &CodeHash) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) fn is_revoked(&self, _: &Claims) -> bool {
        match *self {}
    }

    pub(super) fn remembers_for(&self) -> Duration {
        match *self {}
    }

    pub(super) async fn revoke(&self, _: SessionId) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn revoke_user(&self, _: &OpenId, _: Timestamp) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn revoked_until(&self, _: &OpenId) -> Option<Timestamp> {
        match *self {}
    }

    pub(super) async fn generation(&self, _: SessionId) -> Result<u32, Unavailable> {
        match *self {}
    }

    pub(super) async fn spend(
        &self,
        _: SessionId,
        _: u32,
        _: Timestamp,
        _: Duration,
    ) -> Result<Spent, Unavailable> {
        match *self {}
    }

    pub(super) async fn remember_key(&self, _: &OpenId, _: &SessionKey) -> Result<(), Unavailable> {
        match *self {}
    }

    pub(super) async fn keys(&self, _: &OpenId) -> Result<KeyRing, Unavailable> {
        match *self {}
    }
}
