//! WeChat's protocol as data: error codes, shapes of questions and answers. No I/O and no clock.

pub mod access_token;
pub mod answer;
pub mod api;
pub mod api_security;
pub mod cloud_id;
pub mod content_check;
pub mod endpoints;
pub mod errcode;
pub mod login;
pub mod media;
pub mod open_data;
pub mod phone;
pub mod push;
pub mod quota;
pub mod rid;
pub mod session_key;
pub mod signature;
