//! Open data on its way: asked for at our own endpoints, or standing in a body for the app.
//!
//! Whose it is, is settled here: by a code that comes along, which is exchanged first, or by the token. What is decrypted
//! never says who the user is.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Caller, Exchange, Grant, overloaded, parse_code, token_missing, with_tokens};
use crate::answer::Answer;
use crate::domain::{CloudId, SessionKey};
use crate::error::{Error, Kind};
use crate::open_data::{self, Content, Place, Request, Sealed, Wanted};
use crate::resilience::Buffered;
use crate::session::{Claims, Granted};
use crate::wire::{Framing, Name, Reader, Responder};

/// The largest body with open data at our own endpoints. A month of step counts is some three kilobytes.
const BODY_LIMIT: u64 = 512 * 1024;
/// When it is told that data cannot be decrypted, counted from when that was tried: always the same, far more than it
/// takes, so that the time does not say what was wrong with it.
const FAILURE_AFTER: Duration = Duration::from_millis(25);

/// Whose data it is, and the keys it may be encrypted with, likeliest first.
struct Owner {
    claims: Rc<Claims>,
    keys: Vec<SessionKey>,
    grant: Option<Grant>,
}

impl<'a> Exchange<'a> {
    /// `POST /wx/open-data`
    pub(super) async fn open_data(
        &self,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        let request = self.read_all(BODY_LIMIT, body, responder).await?;
        self.open(Request::parse(&request)?).await
    }

    /// The same for whoever asks in the query.
    pub(super) async fn open(&self, request: Request) -> Result<Answer, Error> {
        let owner = self.owner(request.code()).await?;
        let answer = match request.wanted()? {
            Wanted::Encrypted(sealed) => {
                let data = self.decrypt(&sealed, &owner.keys).await?;
                open_data::answer(data.json())
            }
            Wanted::Cloud(id) => {
                let opener = &self.snapshot.opener;
                let data = opener.fetch(&owner.claims.user.openid, &[id]).await?;
                open_data::answer(&data.concat())
            }
        };
        Ok(with_tokens(answer, owner.grant))
    }

    /// `POST /wx/phone`
    pub(super) async fn phone(
        &self,
        body: &mut Reader<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Answer, Error> {
        let request = self.read_all(BODY_LIMIT, body, responder).await?;
        self.phone_of(Request::parse(&request)?).await
    }

    /// The same for whoever asks in the query. The button gives a code beside the ciphertext; the code is better, as no
    /// session_key can be too old for it.
    pub(super) async fn phone_of(&self, request: Request) -> Result<Answer, Error> {
        let owner = self.owner(None).await?;
        let opener = &self.snapshot.opener;
        let user = &owner.claims.user.openid;
        let answer = match request.code() {
            Some(code) => opener.phone_by_code(code, user).await?,
            None => match request.wanted()? {
                Wanted::Encrypted(sealed) => {
                    open_data::phone(&self.decrypt(&sealed, &owner.keys).await?)?
                }
                Wanted::Cloud(_) => {
                    let detail =
                        "a phone number comes from a `code`, or from `encryptedData` and `iv`";
                    return Err(Error::downstream(Kind::BadRequest, detail));
                }
            },
        };
        Ok(with_tokens(answer, owner.grant))
    }

    /// The body for the app with its open data decrypted, and how many pieces that were; `None` if it is a body that is
    /// not looked into.
    pub(super) async fn rewritten(
        &self,
        text: &[u8],
        caller: &Caller,
    ) -> Result<(Buffered, usize), Error> {
        let refused = |why: open_data::Refused| Error::downstream(Kind::BadRequest, why.0);
        let places = open_data::find(text).map_err(refused)?;
        let plain = self.plaintexts(&places, caller).await?;
        let budget = self.snapshot.config.inbound.buffer_limit;
        let mut body = self.snapshot.shared.buffers.body(budget);
        for piece in open_data::pieces(text, &places, &plain) {
            body.push(piece)
                .map_err(|_no_room| overloaded("the memory for bodies is in use (buffer_limit)"))?;
        }
        Ok((body, places.len()))
    }

    /// Whether the body is one that open data may stand in. Others are passed on as they come, and the app is not told
    /// that anything was decrypted.
    pub(super) fn has_json_body(&self) -> Result<bool, Error> {
        if self.head.framing == Framing::Empty {
            return Ok(false);
        }
        let Some(kind) = self.only(Name::ContentType)? else {
            return Ok(false);
        };
        let kind = kind.split(|b| *b == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii().to_ascii_lowercase();
        let is_json =
            matches!(&kind[..], b"application/json" | b"text/json") || kind.ends_with(b"+json");
        if is_json && self.is_encoded() {
            let detail = "a body with open data must not be compressed on this route";
            return Err(Error::downstream(Kind::UnsupportedMediaType, detail));
        }
        Ok(is_json)
    }

    fn is_encoded(&self) -> bool {
        self.head.fields.iter().any(|field| {
            field.name.eq_ignore_ascii_case(b"content-encoding")
                && !field.value.is_empty()
                && !field.value.eq_ignore_ascii_case(b"identity")
        })
    }

    async fn plaintexts(&self, places: &[Place], caller: &Caller) -> Result<Vec<Vec<u8>>, Error> {
        let mut plain = vec![Vec::new(); places.len()];
        let mut in_cloud = Vec::new();
        let mut known = None;
        for (index, place) in places.iter().enumerate() {
            match &place.content {
                Content::Encrypted {
                    encrypted_data,
                    iv,
                    signed,
                    code,
                } => {
                    let sealed = Sealed::parse(encrypted_data, iv, signed.clone())?;
                    let coded;
                    let owner = match (code, &known) {
                        (Some(code), _) => {
                            coded = self.owner_by_code(code, caller).await?;
                            &coded
                        }
                        (None, Some(owner)) => owner,
                        (None, None) => &*known.insert(self.owner_of(caller).await?),
                    };
                    let data = self.decrypt(&sealed, &owner.keys).await?;
                    plain[index] = data.json().to_vec();
                }
                Content::Cloud(id) => {
                    let id = CloudId::parse(id)
                        .map_err(|why| Error::downstream(Kind::BadRequest, why.0))?;
                    in_cloud.push((index, id));
                }
            }
        }
        if !in_cloud.is_empty() {
            let claims = caller.claims.as_ref().ok_or_else(token_missing)?;
            let (indices, ids): (Vec<_>, Vec<_>) = in_cloud.into_iter().unzip();
            let fetched = self
                .snapshot
                .opener
                .fetch(&claims.user.openid, &ids)
                .await?;
            for (index, json) in indices.into_iter().zip(fetched) {
                plain[index] = json;
            }
        }
        Ok(plain)
    }

    async fn decrypt(
        &self,
        sealed: &Sealed,
        keys: &[SessionKey],
    ) -> Result<crate::wechat::open_data::OpenData, Error> {
        let began = Instant::now();
        let decrypted = self.snapshot.opener.decrypt(sealed, keys, self.now);
        if decrypted.is_err() {
            tokio::time::sleep_until(began + FAILURE_AFTER).await;
        }
        decrypted
    }

    /// Whose data comes with a request of our own endpoints.
    async fn owner(&self, code: Option<&str>) -> Result<Owner, Error> {
        let caller = match code {
            Some(code) => match self.log_in(code).await {
                Ok(granted) => return self.owner_of_login(granted).await,
                Err(error) if is_no_login_code(&error) => self
                    .authenticate(crate::config::Auth::Required)
                    .await
                    .map_err(|_| error)?,
                Err(error) => return Err(error),
            },
            None => self.authenticate(crate::config::Auth::Required).await?,
        };
        self.owner_of(&caller).await
    }

    /// Whose data it is that has a code beside it, in a body for the app.
    async fn owner_by_code(&self, code: &str, caller: &Caller) -> Result<Owner, Error> {
        match self.log_in(code).await {
            Ok(granted) => {
                let user = caller.claims.as_ref().map(|claims| &claims.user.openid);
                if user.is_some_and(|user| *user != granted.claims.user.openid) {
                    let detail = "the `code` beside the open data is another user's than the token";
                    return Err(Error::downstream(Kind::BadRequest, detail));
                }
                self.owner_of_login(granted).await
            }
            Err(error) if is_no_login_code(&error) && caller.claims.is_some() => {
                self.owner_of(caller).await
            }
            Err(error) => Err(error),
        }
    }

    async fn owner_of(&self, caller: &Caller) -> Result<Owner, Error> {
        let claims = caller.claims.clone().ok_or_else(token_missing)?;
        let keys = self.snapshot.sessions.ring(&claims).await;
        Ok(Owner {
            keys,
            claims,
            grant: caller.grant.clone(),
        })
    }

    /// The key that the code brought comes first, whatever other logins do to the ring meanwhile.
    async fn owner_of_login(&self, granted: Granted) -> Result<Owner, Error> {
        let mut owner = self.owner_of(&Caller::logged_in(granted, false)).await?;
        let own = owner.claims.session_key.clone();
        owner.keys.retain(|key| *key != own);
        owner.keys.insert(0, own);
        Ok(owner)
    }

    async fn log_in(&self, code: &str) -> Result<Granted, Error> {
        self.limit_login()?;
        self.snapshot.sessions.login(parse_code(code)?).await
    }
}

/// The phone number button gives a `code` beside its ciphertext that is for something else. WeChat refuses it as a login's,
/// and then what the token says counts.
fn is_no_login_code(error: &Error) -> bool {
    error
        .fault()
        .is_some_and(|fault| matches!(fault.meaning.code, 40029 | 40163))
}
