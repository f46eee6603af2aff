//! `wx-sidecar rid 617682e0-09059ac5-34a8e2ea`: what WeChat remembers of a call, and what its answer means.
//!
//! WeChat itself is asked, with an access_token of the configuration's app; no running sidecar is needed, and none is
//! disturbed, for the token is the one that all share.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::Value;

use super::errcode::errcode;
use super::out;
use crate::error::{Error, Language};
use crate::gateway::{Gateway, Memory};
use crate::source::Source;
use crate::wechat::answer;
use crate::wechat::rid::Remembered;

/// Asks and explains. Exit code 0: explained, 1: not.
pub fn rid(rid: &str, source: &Source, language: Language) -> ExitCode {
    let config = match source.load() {
        Ok(loaded) => loaded.config,
        Err(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let told = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let memory = Memory::default();
            let gateway = Gateway::new(&config.app, &config.wechat, &memory, Default::default());
            gateway.remembered(rid).await
        }),
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match told {
        Ok(remembered) => {
            let text = explained(&remembered, language);
            out::print(format!("{}\n", text.trim_end()))
        }
        Err(error) => {
            eprintln!("{}", refused(&error, language).trim_end());
            ExitCode::FAILURE
        }
    }
}

fn explained(call: &Remembered, language: Language) -> String {
    // Beyond the year 9999 there is no date to be written.
    let seconds = call.invoke_time.min(253_402_300_799);
    let when = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let when = httpdate::fmt_http_date(when);
    let cost_in_ms = call.cost_in_ms;
    let client_ip = printable(&call.client_ip);
    let url = url_without_secrets(&call.request_url);
    let request_body = body_without_secrets(&call.request_body);
    let response_body = body_without_secrets(&call.response_body);
    let answered =
        answer::parse(call.response_body.as_bytes()).map_or(0, |answer| answer.errcode());
    let mut text = format!(
        "called      {when}, took {cost_in_ms} ms\n\
         from        {client_ip}\n\
         URL         {url}\n\
         request     {request_body}\n\
         response    {response_body}\n"
    );
    if answered != 0 {
        text.push('\n');
        text.push_str(&errcode(answered, language));
    }
    text
}

/// What is not for a terminal, in URLs and in bodies. Some of it may still be good.
const SECRETS: [&str; 12] = [
    "access_token",
    "secret",
    "appsecret",
    "js_code",
    "code",
    "session_key",
    "signature",
    "pay_sig",
    "encrypt_key",
    "phoneNumber",
    "purePhoneNumber",
    "refresh_token",
];

fn url_without_secrets(url: &str) -> String {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (format!("{path}?"), query),
        None => (String::new(), url),
    };
    let pairs = query.split('&').map(|pair| {
        let Some((name, _)) = pair.split_once('=') else {
            return pair.to_owned();
        };
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        match SECRETS.contains(&&*decoded) {
            true => format!("{name}=***"),
            false => pair.to_owned(),
        }
    });
    printable(&(path + &pairs.collect::<Vec<_>>().join("&")))
}

/// Of what is no JSON only the length is told: nobody knows what is in it.
fn body_without_secrets(body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    match serde_json::from_str(body) {
        Ok(mut value) => {
            mask(&mut value);
            printable(&value.to_string())
        }
        Err(_) => format!("{} bytes that are not JSON", body.len()),
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match SECRETS.contains(&name.as_str()) {
                    true => *value = Value::from("***"),
                    false => mask(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

fn refused(error: &Error, language: Language) -> String {
    match error.fault() {
        Some(fault) => format!(
            "WeChat does not tell of this rid\n\n{}",
            errcode(fault.meaning.code, language)
        ),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_explained_and_its_token_is_not_shown() {
        let call = Remembered {
            invoke_time: 1_635_156_704,
            cost_in_ms: 30,
            request_url: "/wxa/getwxacode?access_token=50_Im7&a=b".to_owned(),
            request_body: "{}".to_owned(),
            response_body: "{\"errcode\":45009,\"errmsg\":\"x\"}".to_owned(),
            client_ip: "203.0.113.9".to_owned(),
        };
        let text = explained(&call, Language::English);
        for part in [
            "25 Oct 2021",
            "30 ms",
            "203.0.113.9",
            "45009",
            "until midnight in Beijing",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.contains("/wxa/getwxacode?access_token=***&a=b"),
            "{text}"
        );
        assert!(!text.contains("50_Im7"), "{text}");
    }

    #[test]
    fn no_secret_of_a_call_is_shown_and_no_answer_breaks_the_terminal() {
        let call = Remembered {
            invoke_time: u64::MAX,
            cost_in_ms: 0,
            request_url: "access%5Ftoken=5ecret&js_code=5ecret&a=b\u{1b}[2J".to_owned(),
            request_body: r#"{"a":[{"code":"5ecret"}],"secret":"5ecret"}"#.to_owned(),
            response_body: "5ecret".to_owned(),
            client_ip: String::new(),
        };
        let text = explained(&call, Language::English);
        assert!(
            !text.contains("5ecret") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(text.contains("a=b") && text.contains("6 bytes"), "{text}");
    }
}
