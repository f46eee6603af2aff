//! WeChat's protocol as data: error codes, shapes of answers. No I/O and no clock.

pub mod errcode;
