//! WeChat's protocol as data: error codes, shapes of questions and answers. No I/O and no clock.

pub mod answer;
pub mod errcode;
pub mod login;
