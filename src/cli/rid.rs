//! `wx-sidecar rid 617682e0-09059ac5-34a8e2ea`: what WeChat remembers of a call, and what its answer means.
//!
//! WeChat itself is asked, with an access_token of the configuration's app; no running sidecar is needed, and none is
//! disturbed, for the token is the one that all share.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use super::errcode::errcode;
use crate::config::Config;
use crate::error::{Error, Language};
use crate::gateway::{Gateway, Memory};
use crate::wechat::answer;
use crate::wechat::rid::Remembered;

/// Asks and explains. Exit code 0: explained, 1: not.
pub fn rid(rid: &str, config: &Path, language: Language) -> ExitCode {
    let config = match Config::load(config) {
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
            println!("{}", explained(&remembered, language).trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", refused(&error, language).trim_end());
            ExitCode::FAILURE
        }
    }
}

fn explained(call: &Remembered, language: Language) -> String {
    let when = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(call.invoke_time);
    let when = httpdate::fmt_http_date(when);
    let Remembered {
        cost_in_ms,
        request_body,
        response_body,
        client_ip,
        ..
    } = call;
    let url = without_token(&call.request_url);
    let answered = answer::parse(response_body.as_bytes()).map_or(0, |answer| answer.errcode());
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

/// The access_token of a call may still be good.
fn without_token(url: &str) -> String {
    let pieces = url.split('&').map(|pair| match pair.find("access_token=") {
        Some(at) => format!("{}access_token=***", &pair[..at]),
        None => pair.to_owned(),
    });
    pieces.collect::<Vec<_>>().join("&")
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
}
