//! The section as a whole, with the keys of WeChat's documentation.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::super::{ApiSecurity, Config, Loaded, Report};
use super::*;
use crate::wechat::api_security::Paths;

const SYM_KEY: &str = "otUpngOjU+nVQaWJIC3D/yMLV17RKaP6t4Ot9tbnzLY=";
const SM4_KEY: &str = "YXBwaWRkdXNlZm9ydGVzdA==";
/// From `openssl ecparam -name SM2 -genkey`, of OpenSSL 3.0.
const SM2_SEC1: &str = "-----BEGIN SM2 PRIVATE KEY-----\nMHcCAQEEIDcf6EY94ZaHJ6a4rVnBV7rj+rCxjkx/wNfJx+Q2A5jooAoGCCqBHM9V\nAYItoUQDQgAEEDCAH3zMi7TgqFB2mtArGiTuOWPF51qWDCX4MSW3G0/wU+gJ6IV0\ngR9qJ57gZQuImTDGl84kbxKSTSl2t3GbCg==\n-----END SM2 PRIVATE KEY-----\n";

fn vector(name: &str, part: &str) -> String {
    let all = include_str!("../../../tests/vectors/api_security.json");
    let all: Vec<Value> = serde_json::from_str(all).unwrap();
    let one = all.into_iter().find(|one| one["name"] == name).unwrap();
    one["inputs"][part].as_str().unwrap().to_owned()
}

/// A folder with the files that the section may name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let certificate = "platform_certificate_pem";
        let rsa = vector("apisec-rsa-pss-response-signature", certificate);
        let sm2 = vector("apisec-sm2withsm3-signature", certificate);
        folder.write("rsa.crt", &rsa);
        folder.write("sm2.crt", &sm2);
        folder.write("both.crt", &format!("{rsa}\n{sm2}"));
        folder.write(
            "rsa.key",
            &vector("apisec-rsa-pss-request-signature", "private_key_pem"),
        );
        folder.write("sm2.key", &vector("apisec-sm2-keypair", "private_key_pem"));
        folder.write("sm2.sec1", SM2_SEC1);
        folder.write("sym.key", &format!("{SYM_KEY}\n"));
        let other = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        folder.write("p256.crt", &other.cert.pem());
        folder.write("p256.key", &other.signing_key.serialize_pem());
        folder.write(
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// The section with some keys in place of the usual ones; an empty value leaves a key out.
    fn text(&self, changes: &[(&'static str, &str)]) -> String {
        let mut keys = BTreeMap::from([
            ("paths", "\"all\""),
            ("sym_algorithm", "\"AES256_GCM\""),
            ("sym_key_file", "\"sym.key\""),
            ("sym_sn", "\"fa05fe1e5bcc79b81ad5ad4b58acf787\""),
            ("asym_algorithm", "\"RSAwithSHA256\""),
            ("private_key_file", "\"rsa.key\""),
            ("asym_sn", "\"97845f6ed842ea860df6fdf65941ff56\""),
            ("certificate_file", "\"rsa.crt\""),
            ("certificate_sn", "\"79ba700ea147819f640941bceb38b1d1\""),
        ]);
        keys.extend(changes.iter().copied());
        let mut text = "[app]\nappid = \"wx0123456789abcdef\"\nsecret = \"5ec3e75ec3e75ec3e75ec3e75ec3e75e\"\n[inbound]\nupstream = \"http://127.0.0.1:3000\"\n[wechat.api_security]\n".to_owned();
        for (name, value) in keys.into_iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }

    fn parse(&self, changes: &[(&'static str, &str)]) -> Result<Loaded, Report> {
        let name = self.0.path().join("sidecar.toml").display().to_string();
        Config::parse(&self.text(changes), &name, &|_| None)
    }

    /// The section and how many warnings it got.
    fn loaded(&self, changes: &[(&'static str, &str)]) -> (ApiSecurity, String) {
        let Loaded {
            config, warnings, ..
        } = self.parse(changes).unwrap_or_else(|e| panic!("{e}"));
        let section = config.wechat.api_security.unwrap();
        let section = std::sync::Arc::into_inner(section).unwrap();
        (section, warnings.to_string())
    }

    fn refused(&self, changes: &[(&'static str, &str)]) -> Report {
        self.parse(changes).unwrap_err()
    }
}

#[test]
fn without_the_section_nothing_is_encrypted() {
    let text = Folder::new().text(&[]);
    let (text, _) = text.split_once("[wechat.api_security]").unwrap();
    let loaded = Config::parse(text, "sidecar.toml", &|_| None).unwrap();
    assert_eq!(loaded.config.wechat.api_security, None);
}

#[test]
fn the_section_is_read_whole() {
    let folder = Folder::new();
    let (rsa, warnings) = folder.loaded(&[]);
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(rsa.paths, Paths::All);
    assert_eq!(rsa.symmetric.key.cipher(), Cipher::Aes256);
    assert_eq!(
        rsa.symmetric.number.as_str(),
        "fa05fe1e5bcc79b81ad5ad4b58acf787"
    );
    assert_eq!(rsa.private.key.scheme(), Scheme::RsaPss);
    assert_eq!(rsa.certificates.len(), 1);
    assert_eq!(rsa, folder.loaded(&[]).0);

    let pem = vector("apisec-sm2-keypair", "private_key_pem");
    let (sm2, warnings) = folder.loaded(&[
        (
            "paths",
            "[\"/wxa/plugin\", \"/cgi-bin/express/intracity/addorder\"]",
        ),
        ("sym_algorithm", "\"SM4_GCM\""),
        ("sym_key_file", ""),
        ("sym_key", &format!("\"{SM4_KEY}\"")),
        ("asym_algorithm", "\"SM2withSM3\""),
        ("private_key_file", ""),
        ("private_key", &format!("\"\"\"\n{pem}\"\"\"")),
        ("certificate_file", "[\"sm2.crt\", \"rsa.crt\"]"),
        (
            "certificate_sn",
            "[\"8a98f6bba1415c0c4f6879bda6807861\", \"79ba700ea147819f640941bceb38b1d1\"]",
        ),
    ]);
    assert!(warnings.is_empty(), "{warnings}");
    let paths = ["/wxa/plugin", "/cgi-bin/express/intracity/addorder"];
    assert_eq!(sm2.paths, Paths::These(paths.map(str::to_owned).into()));
    assert_eq!(sm2.symmetric.key.cipher(), Cipher::Sm4);
    assert_eq!(sm2.private.key.scheme(), Scheme::Sm2);
    let schemes = [&sm2.certificates[0], &sm2.certificates[1]].map(|it| it.key.scheme());
    assert_eq!(schemes, [Scheme::Sm2, Scheme::RsaPss]);
    assert_ne!(rsa, sm2);

    let sec1 = [
        ("asym_algorithm", "\"SM2withSM3\""),
        ("private_key_file", "\"sm2.sec1\""),
    ];
    let (sec1, _) = folder.loaded(&sec1);
    assert_ne!(sec1.private.key, sm2.private.key);
}

#[test]
fn each_mistake_has_its_message() {
    let folder = Folder::new();
    let base64_of_20 = STANDARD.encode([1; 20]);
    let quoted = |text: &str| format!("\"{text}\"");
    for (changes, expected) in [
        (
            &[("paths", "")][..],
            "`[wechat.api_security] paths` is missing",
        ),
        (&[("paths", "[]")], "no call would be encrypted"),
        (
            &[("paths", "[\"all\", \"/wxa/plugin\"]")],
            "has the others in it",
        ),
        (
            &[("paths", "\"https://api.weixin.qq.com/wxa/plugin?a=b\"")],
            "write \"/wxa/plugin\"",
        ),
        (&[("paths", "\"wxa/plugin\"")], "an API's path is written"),
        (
            &[("sym_algorithm", "")],
            "`[wechat.api_security] sym_algorithm` is missing",
        ),
        (
            &[("sym_algorithm", "\"AES256-GCM\"")],
            "did you mean \"AES256_GCM\"?",
        ),
        (
            &[("sym_key_file", "")],
            "`[wechat.api_security] sym_key` is missing",
        ),
        (&[("sym_key", &quoted(SYM_KEY))], "exclude each other"),
        (
            &[("sym_key_file", "[\"sym.key\", \"sym.key\"]")],
            "there is one key only",
        ),
        (
            &[("sym_algorithm", "\"SM4_GCM\"")],
            "this one would be for sym_algorithm = \"AES256_GCM\"",
        ),
        (
            &[("sym_key_file", ""), ("sym_key", &quoted(SM4_KEY))],
            "this one would be for sym_algorithm = \"SM4_GCM\"",
        ),
        (
            &[("sym_key_file", ""), ("sym_key", &quoted(&base64_of_20))],
            "has 32 bytes, in base64",
        ),
        (
            &[("sym_key_file", ""), ("sym_key", "\"hunter2\"")],
            "this key is not base64",
        ),
        (
            &[("sym_sn", "")],
            "`[wechat.api_security] sym_sn` is missing",
        ),
        (&[("sym_sn", "\"a|b\"")], "1 to 64 letters and digits"),
        (
            &[("asym_algorithm", "")],
            "`[wechat.api_security] asym_algorithm` is missing",
        ),
        (
            &[("asym_algorithm", "\"rsa\"")],
            "\"RSAwithSHA256\" and \"SM2withSM3\"",
        ),
        (
            &[("private_key_file", "")],
            "`[wechat.api_security] private_key` is missing",
        ),
        (
            &[("private_key_file", "\"sm2.key\"")],
            "this one would be for asym_algorithm = \"SM2withSM3\"",
        ),
        (
            &[("private_key_file", "\"p256.key\"")],
            "it is RSA of 2048 to 8192 bits",
        ),
        (
            &[
                ("private_key_file", "\"p256.key\""),
                ("asym_algorithm", "\"SM2withSM3\""),
            ],
            "it is a key of the curve SM2",
        ),
        (
            &[("private_key_file", "\"locked.key\"")],
            "this private key is encrypted",
        ),
        (
            &[("private_key_file", "\"rsa.crt\"")],
            "this is no private key in PEM",
        ),
        (
            &[("private_key_file", "\"none\"")],
            "the file `none` does not exist",
        ),
        (
            &[("asym_sn", "")],
            "`[wechat.api_security] asym_sn` is missing",
        ),
        (
            &[("certificate_file", "")],
            "`[wechat.api_security] certificate_file` is missing",
        ),
        (
            &[("certificate_file", "\"rsa.key\"")],
            "this file has no certificate",
        ),
        (
            &[("certificate_file", "\"both.crt\"")],
            "more than one certificate",
        ),
        (
            &[("certificate_file", "\"p256.crt\"")],
            "its key is neither RSA nor SM2",
        ),
        (
            &[("certificate_file", "\"none\"")],
            "the file `none` does not exist",
        ),
        (
            &[("certificate_sn", "")],
            "`[wechat.api_security] certificate_sn` is missing",
        ),
        (&[("certificate_sn", "[]")], "this list is empty"),
        (
            &[("certificate_file", "[\"rsa.crt\", \"sm2.crt\"]")],
            "there are 1 numbers for 2 certificates",
        ),
        (
            &[
                ("certificate_file", "[\"rsa.crt\", \"sm2.crt\"]"),
                (
                    "certificate_sn",
                    "[\"79ba700ea147819f640941bceb38b1d1\", \"79ba700ea147819f640941bceb38b1d1\"]",
                ),
            ],
            "another certificate has this number",
        ),
    ] {
        let report = folder.refused(changes);
        let errors: Vec<_> = report.diagnostics().collect();
        assert_eq!(errors.len(), 1, "{changes:?}: {report}");
        assert!(errors[0].1.is_some(), "{report}");
        assert!(
            report.to_string().contains(expected),
            "{changes:?}: {report}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let report = Folder::new().refused(&[
        ("paths", "\"x\""),
        ("sym_key_file", "\"rsa.crt\""),
        ("sym_sn", "\"\""),
        ("private_key_file", "\"p256.key\""),
        ("asym_sn", "1"),
        ("certificate_file", "[\"p256.crt\", \"none\"]"),
        ("certificate_sn", "[\"a|b\", \"c|d\"]"),
        ("certificate_sm", "1"),
    ]);
    assert_eq!(report.diagnostics().count(), 9, "{report}");
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let folder = Folder::new();
    for (changes, expected) in [
        (
            &[(
                "paths",
                "[\"/wxa/getuserriskrank\", \"/wxa/getuserriskrang\"]",
            )][..],
            "did you mean \"/wxa/getuserriskrank\"?",
        ),
        (
            &[("paths", "\"/cgi-bin/media/upload\"")],
            "does not say that this API can be encrypted",
        ),
        (&[("sym_sn", "\"1\"")], "does not look like a key's number"),
        (&[("asym_sn", "\"1\"")], "does not look like a key's number"),
    ] {
        let (_, warnings) = folder.loaded(changes);
        assert!(warnings.contains(expected), "{warnings}");
    }
    let serial = [(
        "certificate_sn",
        "\"784F98CBBBCCFE8F9E1C7B1F33ED5B1892446534\"",
    )];
    let (_, warnings) = folder.loaded(&serial);
    assert!(
        warnings.contains("this is the serial number in the certificate"),
        "{warnings}"
    );
}

#[test]
fn no_key_appears_in_a_report() {
    let folder = Folder::new();
    let pem = vector("apisec-rsa-pss-request-signature", "private_key_pem");
    let in_one_line = pem.replace('\n', "\\n");
    let (lines, line) = (format!("'''\n{pem}'''"), format!("\"{in_one_line}\""));
    let key = format!("\"{SYM_KEY}\"");
    for name in [
        "sym_key",
        "sym_key_file",
        "sym_sn",
        "private_key",
        "private_key_file",
        "asym_sn",
        "certificate_file",
        "certificate_sn",
        "paths",
        "sym_keu",
    ] {
        for value in [&lines, &line, &key] {
            for broken in ["", " x"] {
                let value = format!("{value}{broken}");
                let report = folder.refused(&[(name, &value), ("certificate_sm", "1")]);
                for out in [
                    report.to_string(),
                    report.to_json().to_string(),
                    format!("{report:?}"),
                ] {
                    for part in ["otUpngOjU", "MIIEowIBAAKC", "YUPwKDDKf3", "qQjKPayME81elus"] {
                        assert!(!out.contains(part), "{name} {value}\n{out}");
                    }
                }
            }
        }
    }
}
