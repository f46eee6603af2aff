//! `wx-sidecar errcode 40029`: what a number of WeChat's means, and what to do about it.
//!
//! People paste the number from a log into a search engine and find ten years of contradictory forum threads. The table
//! and the advice here are those that the sidecar itself answers by, so both always tell the same.

use crate::error::Language;
use crate::wechat::errcode;

/// What `code` means, for a terminal. The sentence is given in both languages; labels and advice in `language`.
pub fn errcode(code: i64, language: Language) -> String {
    let meaning = errcode::meaning(code);
    let class = meaning.class.as_str();
    let status = meaning.status;
    let (zh, en) = (meaning.zh, meaning.en);
    match language {
        Language::English => format!(
            "errcode     {code}\n\
             class       {class}\n\
             HTTP status {status}\n\
             retryable   {retryable}\n\
             English     {en}\n\
             中文        {zh}\n\
             what to do  {advice}\n",
            retryable = if meaning.retryable { "yes" } else { "no" },
            advice = errcode::advice(code).unwrap_or("no advice beyond the sentence above"),
        ),
        Language::Chinese => format!(
            "错误码      {code}\n\
             类别        {class}\n\
             HTTP 状态码 {status}\n\
             可否重试    {retryable}\n\
             中文        {zh}\n\
             English     {en}\n\
             如何处理    {advice}\n",
            retryable = if meaning.retryable {
                "可以"
            } else {
                "不可"
            },
            advice = errcode::advice_zh(code).unwrap_or("除上述说明外没有更多建议"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_code_is_told_with_its_advice() {
        let text = errcode(40163, Language::English);
        for part in [
            "40163",
            "user_input",
            "401",
            "no",
            "already been used",
            "code 已被使用",
            "call wx.login again",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn chinese_has_its_own_labels_and_advice() {
        let text = errcode(-1, Language::Chinese);
        for part in ["错误码", "-1", "transient", "503", "可以", "请等一秒后重试"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_unknown_code_is_called_unknown() {
        let text = errcode(7_654_321, Language::English);
        for part in ["7654321", "unknown", "502", "not in the table"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
