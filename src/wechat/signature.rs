//! Signatures: what proves to WeChat that we know a user's session_key or the app's payment key, and to us that a client's
//! data came from WeChat.
//!
//! Sources: developers.weixin.qq.com, 服务端 / 小程序登录 / 检验登录态; 虚拟支付, section 2.6; 开放数据校验与解密. A session_key signs as
//! the base64 text that WeChat gave, not as the bytes that this stands for. What is signed is the body as it is sent, to
//! the byte: who signs one text and sends another, equal as JSON, is refused.

use aws_lc_rs::digest;

use crate::crypto::{constant_time_eq, hex, hmac_sha256};
use crate::domain::SessionKey;
use crate::secret::Secret;

/// The `signature` of a call on behalf of a user, with `sig_method=hmac_sha256`: over the body, or over nothing if there
/// is none. Virtual payment's `signature` is the same.
pub fn session_signature(session_key: &SessionKey, body: &[u8]) -> String {
    let key = session_key.to_text();
    hex(&hmac_sha256(key.as_bytes(), &[body]))
}

/// Virtual payment's `pay_sig`: over the path (without a query) or, on the client's side, the name of the function, and
/// the body.
pub fn pay_sig(app_key: &Secret, uri: &str, body: &[u8]) -> String {
    hex(&hmac_sha256(
        app_key.expose().as_bytes(),
        &[uri.as_bytes(), b"&", body],
    ))
}

/// Whether `signature` is WeChat's over the `rawData` that a client shows. It takes as long wherever the two differ.
pub fn is_raw_data_signature(signature: &str, raw_data: &str, session_key: &SessionKey) -> bool {
    // WeChat's choice, and not one of ours: SHA-1 with a secret at the end.
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(raw_data.as_bytes());
    context.update(session_key.to_text().as_bytes());
    let expected = hex(context.finish().as_ref());
    constant_time_eq(signature.as_bytes(), expected.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SessionKey {
        SessionKey::parse(text).unwrap()
    }

    #[test]
    fn a_session_signature_is_the_documentations() {
        let signature = session_signature(&key("o0q0otL8aEzpcZL/FT9WsQ=="), br#"{"foo":"bar"}"#);
        assert_eq!(
            signature,
            "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
        );
    }

    #[test]
    fn virtual_payments_signatures_are_the_documentations() {
        let body = br#"{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}"#;
        assert_eq!(
            pay_sig(&Secret::new("12345"), "/xpay/query_user_balance", body),
            "c37809f27c6d7fd1837ad2500a04512b66b34fd793a39a385fade56dca89a4b5"
        );
        assert_eq!(
            session_signature(&key("9hAb/NEYUlkaMBEsmFgzig=="), body),
            "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7"
        );
    }

    #[test]
    fn raw_data_is_believed_with_its_signature_and_with_no_other() {
        let raw_data = r#"{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}"#;
        let signature = "75e81ceda165f4ffa64f4068af58c64b8f54b88c";
        let session_key = key("HyVFkGl5F5OQWJZZaNzBBg==");
        assert!(is_raw_data_signature(signature, raw_data, &session_key));
        let upper = signature.to_uppercase();
        for (signature, raw_data, session_key) in [
            (signature, &raw_data[1..], &session_key),
            (signature, raw_data, &key("o0q0otL8aEzpcZL/FT9WsQ==")),
            (&signature[1..], raw_data, &session_key),
            (&upper, raw_data, &session_key),
            ("", raw_data, &session_key),
        ] {
            assert!(!is_raw_data_signature(signature, raw_data, session_key));
        }
    }
}
