//! Open data on its way: asked for at our own endpoints, or standing in a body for the app.
//!
//! Whose it is, is settled here: by a code that comes along, which is exchanged first, or by the token. What is decrypted
//! never says who the user is.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Caller, Exchange, Grant, bad_request, parse_code, token_missing, with_tokens};
use crate::answer::Answer;
use crate::domain::{CloudId, SessionKey};
use crate::error::{Error, Kind};
use crate::open_data::{self, Content, Number, Place, Request, Sealed, Wanted};
use crate::resilience::Buffered;
use crate::session::{Claims, Granted};
use crate::telemetry::inspector;
use crate::wire::{Name, Reader, Responder};

/// The largest body with open data at our own endpoints. A month of step counts is some three kilobytes.
pub(in crate::server) const BODY_LIMIT: u64 = 512 * 1024;
/// When it is told that data cannot be decrypted, counted from when that was tried: always the same, far more than it
/// takes, so that the time does not say what was wrong with it.
const FAILURE_AFTER: Duration = Duration::from_millis(25);

/// Whose data it is.
struct Owner {
    claims: Rc<Claims>,
    grant: Option<Grant>,
    /// Whether a code that came along said so.
    by_code: bool,
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
        let (owner, wanted) = self.asked(request.code(), request.wanted()).await?;
        let answer = match wanted {
            Wanted::Encrypted(sealed) => {
                let data = self.decrypt(&sealed, &self.keys(&owner).await).await?;
                open_data::answer(data.json())
            }
            Wanted::Cloud(id) => {
                let opener = &self.snapshot.opener;
                let ids = [id];
                let fetching = opener.fetch(&owner.claims.user.openid, &ids);
                let data = self.timings.wechat(fetching).await?.concat();
                inspector::note(|record| record.opened(&data));
                open_data::answer(&data)
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

    /// The same for whoever asks in the query.
    pub(super) async fn phone_of(&self, request: Request) -> Result<Answer, Error> {
        let (owner, number) = self.asked(None, request.number()).await?;
        let opener = &self.snapshot.opener;
        let answer = match number {
            Number::Code(code) => {
                let user = &owner.claims.user.openid;
                let asking = opener.phone_by_code(&code, user);
                let answer = self.timings.wechat(asking).await?;
                inspector::note(|record| record.opened(&answer.body));
                answer
            }
            Number::Encrypted(sealed) => {
                let data = self.decrypt(&sealed, &self.keys(&owner).await).await?;
                open_data::phone(&data)?
            }
        };
        Ok(with_tokens(answer, owner.grant))
    }

    /// The body for the app with its open data decrypted, and how many pieces that were. It must be JSON.
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
            body.push(piece)?;
        }
        Ok((body, places.len()))
    }

    /// Codes are exchanged last, when nothing but they and the ciphertexts beside them can still be wrong.
    async fn plaintexts(&self, places: &[Place], caller: &Caller) -> Result<Vec<Vec<u8>>, Error> {
        let mut sealed = Vec::new();
        let mut in_cloud = Vec::new();
        for (index, place) in places.iter().enumerate() {
            match &place.content {
                Content::Encrypted {
                    encrypted_data,
                    iv,
                    signed,
                    code,
                } => {
                    let data = Sealed::parse(encrypted_data, iv, signed.clone())?;
                    sealed.push((index, data, code.as_deref()));
                }
                Content::Cloud(id) => {
                    let id = CloudId::parse(id).map_err(bad_request)?;
                    in_cloud.push((index, id));
                }
            }
        }
        let mut plain = vec![Vec::new(); places.len()];
        if !in_cloud.is_empty() {
            let owner = Owner::of(caller)?;
            let (indices, ids): (Vec<_>, Vec<_>) = in_cloud.into_iter().unzip();
            let user = &owner.claims.user.openid;
            let fetching = self.snapshot.opener.fetch(user, &ids);
            let fetched = self.timings.wechat(fetching).await?;
            for (index, json) in indices.into_iter().zip(fetched) {
                inspector::note(|record| record.opened(&json));
                plain[index] = json;
            }
        }
        sealed.sort_by_key(|(_, _, code)| code.is_some());
        let mut keys = None;
        for (index, sealed, code) in sealed {
            let by_code;
            let keys = match (code, &keys) {
                (Some(code), _) => {
                    by_code = self.keys(&self.owner_by_code(code, caller).await?).await;
                    &by_code
                }
                (None, Some(keys)) => keys,
                (None, None) => &*keys.insert(self.keys(&Owner::of(caller)?).await),
            };
            plain[index] = self.decrypt(&sealed, keys).await?.json().to_vec();
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
        match &decrypted {
            Ok(data) => inspector::note(|record| record.opened(data.json())),
            Err(_) => tokio::time::sleep_until(began + FAILURE_AFTER).await,
        }
        decrypted
    }

    /// Who asks for `wanted` at one of our own endpoints, and that, if it is what can be asked for. A code works once, so
    /// none is spent on anything else; who brings none is told first that a token is needed.
    async fn asked<T>(
        &self,
        code: Option<&str>,
        wanted: Result<T, Error>,
    ) -> Result<(Owner, T), Error> {
        let brings_code = code.is_some() || self.only(Name::XWxCode)?.is_some();
        let wanted = match wanted {
            Err(error) if brings_code => return Err(error),
            wanted => wanted,
        };
        let owner = self.owner(code).await?;
        Ok((owner, wanted?))
    }

    async fn owner(&self, code: Option<&str>) -> Result<Owner, Error> {
        let caller = match code {
            Some(code) => match self.log_in(code).await {
                Ok(granted) => return Owner::of_login(granted),
                Err(error) if is_no_login_code(&error) => self
                    .authenticate(crate::config::Auth::Required)
                    .await
                    .map_err(|_| error)?,
                Err(error) => return Err(error),
            },
            None => self.authenticate(crate::config::Auth::Required).await?,
        };
        Owner::of(&caller)
    }

    /// Whose data it is that has a code beside it, in a body for the app.
    async fn owner_by_code(&self, code: &str, caller: &Caller) -> Result<Owner, Error> {
        match self.log_in(code).await {
            Ok(granted) => {
                let user = caller.claims.as_ref().map(|claims| &claims.user.openid);
                if user.is_some_and(|user| *user != granted.claims.user.openid) {
                    let detail = (
                        "the `code` beside the open data is another user's than the token",
                        "开放数据旁的 `code` 与访问令牌不属于同一个用户",
                    );
                    return Err(Error::downstream(Kind::BadRequest, detail));
                }
                Owner::of_login(granted)
            }
            Err(error) if is_no_login_code(&error) && caller.claims.is_some() => Owner::of(caller),
            Err(error) => Err(error),
        }
    }

    /// The keys that the owner's data may be encrypted with, likeliest first. The one that a code brought comes first,
    /// whatever other logins do to the ring meanwhile.
    async fn keys(&self, owner: &Owner) -> Vec<SessionKey> {
        let mut keys = self.snapshot.sessions.ring(&owner.claims).await;
        if owner.by_code {
            let own = &owner.claims.session_key;
            keys.retain(|key| key != own);
            keys.insert(0, own.clone());
        }
        keys
    }

    async fn log_in(&self, code: &str) -> Result<Granted, Error> {
        self.limit_login()?;
        let login = self.snapshot.sessions.login(parse_code(code)?);
        self.timings.wechat(login).await
    }
}

impl Owner {
    fn of(caller: &Caller) -> Result<Self, Error> {
        Ok(Self {
            claims: caller.claims.clone().ok_or_else(token_missing)?,
            grant: caller.grant.clone(),
            by_code: false,
        })
    }

    fn of_login(granted: Granted) -> Result<Self, Error> {
        let owner = Self::of(&Caller::logged_in(granted, false))?;
        Ok(Self {
            by_code: true,
            ..owner
        })
    }
}

/// The phone number button gives a `code` beside its ciphertext that is for something else. WeChat refuses it as a login's,
/// and then what the token says counts.
fn is_no_login_code(error: &Error) -> bool {
    error
        .fault()
        .is_some_and(|fault| matches!(fault.meaning.code, 40029 | 40163))
}
