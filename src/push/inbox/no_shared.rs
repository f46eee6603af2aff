//! Without the feature `redis` there is no such inbox, and the configuration cannot ask for it.

use super::{Accepted, Fetched, Letter, NotStored, Outlet, Put, Which};
use crate::config::Config;
use crate::push::entry::Death;

pub(crate) enum Shared {}

impl Shared {
    pub(super) async fn keep(&self, _: impl Future<Output = ()>) {
        match *self {}
    }

    pub(super) fn retire(&self) {
        match *self {}
    }

    pub(super) fn rekey(&self, _: &Config) {
        match *self {}
    }

    pub(super) fn outlet(&self) -> &Outlet {
        match *self {}
    }

    pub(super) async fn put(&self, _: Put) -> Result<Accepted, NotStored> {
        match *self {}
    }

    pub(super) fn settle(&self, _: u64) {
        match *self {}
    }

    pub(super) fn bury(&self, _: u64, _: Death) {
        match *self {}
    }

    pub(super) fn rest(&self, _: u64) {
        match *self {}
    }

    pub(super) async fn revive(&self, _: Which) -> Result<usize, String> {
        match *self {}
    }

    pub(super) async fn drop_letters(&self, _: Which) -> Result<usize, String> {
        match *self {}
    }

    pub(super) async fn fetch(&self, _: Vec<u64>) -> Fetched {
        match *self {}
    }

    pub(super) async fn list(&self, _: bool, _: u64, _: usize) -> Result<Vec<Letter>, String> {
        match *self {}
    }
}
