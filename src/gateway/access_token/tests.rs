//! The keeper by itself: WeChat is a script, and time passes when the test says so.

use super::*;
use crate::error::WechatFault;
use crate::wechat::errcode;

const HOUR: Duration = Duration::from_secs(3600);

/// A WeChat that answers by the book, and notes what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Whether each fetch was forced.
    asked: Arc<Mutex<Vec<bool>>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
enum Answer {
    Token(&'static str, u64),
    /// The same, after a while.
    Late(Duration, &'static str),
    Errcode(i64),
    Unreachable,
    Panic,
}

use Answer::{Errcode, Late, Panic, Token, Unreachable};

impl Script {
    fn of(answers: &[Answer]) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.iter().cloned().collect())),
            ..Self::default()
        }
    }

    fn asked(&self) -> Vec<bool> {
        self.asked.lock().unwrap().clone()
    }

    /// How often somebody else has replaced the token.
    fn foreign(&self) -> f64 {
        let families = self.metrics.registry().gather();
        let name = "wx_sidecar_wx_token_foreign_refresh_total";
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_counter().get_value()
    }

    fn counted(&self, reason: &str, result: &str) -> f64 {
        let families = self.metrics.registry().gather();
        let refreshes = families
            .iter()
            .filter(|family| family.name() == "wx_sidecar_wx_token_refresh_total")
            .flat_map(|family| family.get_metric());
        let labels = [("reason", reason), ("result", result)];
        let is_it = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                let mut labels = metric.get_label().iter();
                labels.any(|label| label.name() == *name && label.value() == *value)
            })
        };
        refreshes
            .filter(is_it)
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }
}

impl Source for Script {
    async fn fetch(&self, force: bool) -> Result<Grant, Error> {
        self.asked.lock().unwrap().push(force);
        let answer = self.answers.lock().unwrap().pop_front();
        match answer.expect("nobody asks more often than is written") {
            Token(text, life) => Ok(grant(text, life)),
            Late(after, text) => {
                tokio::time::sleep(after).await;
                Ok(grant(text, 7200))
            }
            Errcode(code) => Err(refusal(code)),
            Unreachable => Err(Error::new(
                Kind::WechatUnreachable,
                Side::Wechat,
                ("no connection to WeChat", "无法连接微信服务器"),
            )),
            Panic => panic!("as the test wants"),
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

fn grant(text: &str, life: u64) -> Grant {
    Grant {
        token: token(text),
        expires_in: Duration::from_secs(life),
    }
}

fn refusal(code: i64) -> Error {
    let fault = WechatFault {
        meaning: errcode::meaning(code),
        errmsg: String::new(),
        rid: None,
    };
    let error = Error::wechat(fault);
    match errcode::retry_after(code) {
        Some(after) => error.with_retry_after(after),
        None => error,
    }
}

fn token(text: &str) -> AccessToken {
    AccessToken::parse(text).unwrap()
}

fn app(secrets: &[&str]) -> config::App {
    config::App {
        appid: AppId::parse("wx0123456789abcdef").unwrap(),
        secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect(),
        env: String::new(),
    }
}

fn keeper() -> Arc<AccessTokenKeeper> {
    AccessTokenKeepers::default().keeper(&app(&["s"]), &Metrics::new())
}

/// Lets time pass, and what is due in it happen.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Lets flights in the background land that need no time.
async fn settle() {
    pass(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_when_it_is_needed_and_not_forced() {
    let (keeper, wechat) = (keeper(), Script::of(&[Token("one", 7200)]));
    for _ in 0..3 {
        assert_eq!(keeper.token(&wechat).await.unwrap(), token("one"));
    }
    assert_eq!(wechat.asked(), [false]);
    assert_eq!(wechat.counted("missing", "ok"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_cause_one_fetch() {
    let slow = Script::of(&[Late(Duration::from_secs(1), "one")]);
    let keeper = keeper();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (keeper, slow) = (Arc::clone(&keeper), slow.clone());
            tokio::spawn(async move { keeper.token(&slow).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), token("one"));
    }
    assert_eq!(slow.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_does_not_cost_the_others_the_token() {
    let slow = Script::of(&[Late(Duration::from_secs(5), "one")]);
    let keeper = keeper();
    let hasty = tokio::time::timeout(Duration::from_secs(1), keeper.token(&slow));
    assert!(hasty.await.is_err());
    assert_eq!(keeper.token(&slow).await.unwrap(), token("one"));
    assert_eq!(slow.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_token_is_fetched_while_the_old_one_serves_however_slow_that_is() {
    let answers = [Token("one", 7200), Late(Duration::from_secs(30), "two")];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    keeper.token(&wechat).await.unwrap();
    pass(Duration::from_secs(7200) - AHEAD - Duration::from_secs(1)).await;
    keeper.token(&wechat).await.unwrap();
    assert_eq!(wechat.asked().len(), 1, "it is not time yet");

    pass(Duration::from_secs(1)).await;
    let asked = Instant::now();
    for _ in 0..29 {
        assert_eq!(keeper.token(&wechat).await.unwrap(), token("one"));
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(asked.elapsed(), Duration::from_secs(29), "no call waited");
    pass(Duration::from_secs(2)).await;
    assert_eq!(keeper.token(&wechat).await.unwrap(), token("two"));
    assert_eq!(wechat.asked(), [false, false]);
    assert_eq!(wechat.counted("due", "ok"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_given_late_in_its_life_is_renewed_in_its_last_tenth() {
    let answers = [Token("one", 100), Token("one", 10), Token("two", 7200)];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    keeper.token(&wechat).await.unwrap();
    pass(Duration::from_secs(89)).await;
    keeper.token(&wechat).await.unwrap();
    settle().await;
    assert_eq!(wechat.asked().len(), 1);
    pass(Duration::from_secs(1)).await;
    keeper.token(&wechat).await.unwrap();
    settle().await;
    keeper.token(&wechat).await.unwrap();
    settle().await;
    assert_eq!(
        wechat.asked().len(),
        2,
        "the same one again, and not in a loop"
    );
    assert_eq!(wechat.counted("due", "same"), 1.0);
    pass(Duration::from_secs(9)).await;
    assert_eq!(keeper.token(&wechat).await.unwrap(), token("one"));
    settle().await;
    assert_eq!(keeper.token(&wechat).await.unwrap(), token("two"));
}

#[tokio::test(start_paused = true)]
async fn while_renewing_fails_the_old_token_serves_to_its_end_and_then_a_503_says_when_to_come_back()
 {
    let mut answers = vec![Token("one", 7200)];
    answers.extend(vec![Unreachable; 300]);
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    keeper.token(&wechat).await.unwrap();
    pass(Duration::from_secs(7200) - AHEAD).await;
    for _ in 0..AHEAD.as_secs() {
        assert_eq!(keeper.token(&wechat).await.unwrap(), token("one"));
        pass(Duration::from_secs(1)).await;
    }
    let tries = wechat.asked().len();
    assert!((9..=20).contains(&tries), "{tries} tries in {AHEAD:?}");

    let error = keeper.token(&wechat).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (Kind::AccessTokenUnavailable, 503)
    );
    assert!(error.retryable());
    let after = error.retry_after().unwrap();
    assert!(after >= Duration::from_secs(1) && after <= LONGEST_PAUSE);

    wechat
        .answers
        .lock()
        .unwrap()
        .push_front(Token("two", 7200));
    pass(after).await;
    assert_eq!(keeper.token(&wechat).await.unwrap(), token("two"));
    assert_eq!(wechat.counted("expired", "ok"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn after_one_failure_the_next_call_asks_and_after_more_of_them_there_are_pauses() {
    let answers = [Unreachable, Errcode(-1), Unreachable, Token("one", 7200)];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    for (asked, pause) in [(1, 0), (2, 1), (3, 2)] {
        let error = keeper.token(&wechat).await.unwrap_err();
        assert_eq!((error.status(), wechat.asked().len()), (503, asked));
        if pause > 0 {
            let error = keeper.token(&wechat).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(pause)));
            assert_eq!(wechat.asked().len(), asked, "nobody is asked in a pause");
            pass(Duration::from_secs(pause)).await;
        }
    }
    assert!(keeper.token(&wechat).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_waited_for() {
    let (keeper, wechat) = (keeper(), Script::of(&[Errcode(45011), Token("one", 7200)]));
    let error = keeper.token(&wechat).await.unwrap_err();
    assert_eq!(error.status(), 503);
    pass(Duration::from_secs(59)).await;
    let error = keeper.token(&wechat).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    pass(Duration::from_secs(1)).await;
    assert!(keeper.token(&wechat).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_is_told_as_what_it_is() {
    let (keeper, wechat) = (keeper(), Script::of(&[Errcode(40164), Errcode(40164)]));
    for _ in 0..3 {
        let error = keeper.token(&wechat).await.unwrap_err();
        assert_eq!((error.status(), error.side()), (500, Side::Us));
        assert_eq!(error.fault().unwrap().meaning.code, 40164);
    }
    assert_eq!(wechat.asked().len(), 2, "the third time it was known");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_call_and_is_counted() {
    let (keeper, wechat) = (keeper(), Script::of(&[Panic, Token("one", 7200)]));
    let error = keeper.token(&wechat).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(keeper.token(&wechat).await.is_ok());
    let families = wechat.metrics.registry().gather();
    let panics = families
        .iter()
        .find(|family| family.name() == "wx_sidecar_panics_total");
    assert_eq!(
        panics.unwrap().get_metric()[0].get_counter().get_value(),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_of_an_old_token_does_not_cost_the_new_one() {
    let (keeper, wechat) = (keeper(), Script::of(&[Token("new", 7200)]));
    keeper.token(&wechat).await.unwrap();
    let next = keeper.replace(&token("old"), &wechat).await.unwrap();
    assert_eq!(next, Some(token("new")));
    assert_eq!(wechat.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_somebody_else_replaced_is_fetched_without_force_and_once_for_all() {
    let answers = [Token("old", 7200), Late(Duration::from_secs(1), "new")];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let old = keeper.token(&wechat).await.unwrap();
    let refused: Vec<_> = (0..1000)
        .map(|_| {
            let (keeper, wechat, old) = (Arc::clone(&keeper), wechat.clone(), old.clone());
            tokio::spawn(async move { keeper.replace(&old, &wechat).await })
        })
        .collect();
    for caller in refused {
        assert_eq!(caller.await.unwrap().unwrap(), Some(token("new")));
    }
    assert_eq!(wechat.asked(), [false, false]);
    assert_eq!(wechat.counted("refused", "ok"), 1.0);
    assert_eq!(wechat.foreign(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_wechat_renewed_in_its_last_minutes_was_replaced_by_nobody_else() {
    let answers = [Token("old", 7200), Token("new", 7200)];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let old = keeper.token(&wechat).await.unwrap();
    pass(2 * HOUR - Duration::from_secs(299)).await;
    let replaced = keeper.replace(&old, &wechat).await.unwrap();
    assert_eq!(replaced, Some(token("new")));
    assert_eq!(wechat.foreign(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn force_is_for_a_dead_token_that_wechat_gives_again() {
    let answers = [Token("dead", 7200), Token("dead", 7100), Token("new", 7200)];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let dead = keeper.token(&wechat).await.unwrap();
    let next = keeper.replace(&dead, &wechat).await.unwrap();
    assert_eq!(next, Some(token("new")));
    assert_eq!(wechat.asked(), [false, false, true]);
    assert_eq!(wechat.counted("forced", "ok"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nothing_helps_is_left_at_that_for_half_a_minute() {
    // WeChat gives one token for ever and refuses it.
    let (keeper, wechat) = (keeper(), Script::of(&vec![Token("dead", 7200); 7]));
    let dead = keeper.token(&wechat).await.unwrap();
    for _ in 0..1000 {
        assert_eq!(keeper.replace(&dead, &wechat).await.unwrap(), None);
    }
    assert_eq!(wechat.asked(), [false, false, true]);
    assert_eq!(
        keeper.token(&wechat).await.unwrap(),
        dead,
        "it is all there is"
    );
    pass(FORCE_PAUSE).await;
    for _ in 0..1000 {
        assert_eq!(keeper.replace(&dead, &wechat).await.unwrap(), None);
    }
    assert_eq!(wechat.asked(), [false, false, true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_is_refused_at_once_is_asked_about_but_not_forced() {
    let answers = [
        Token("a", 7200),
        Token("a", 7200),
        Token("b", 7200),
        Token("b", 7200),
        Token("b", 7200),
        Token("c", 7200),
    ];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let a = keeper.token(&wechat).await.unwrap();
    let b = keeper.replace(&a, &wechat).await.unwrap().unwrap();
    assert_eq!(keeper.replace(&b, &wechat).await.unwrap(), None);
    assert_eq!(wechat.asked(), [false, false, true, false]);
    pass(FORCE_PAUSE).await;
    let c = keeper.replace(&b, &wechat).await.unwrap();
    assert_eq!(c, Some(token("c")));
}

#[tokio::test(start_paused = true)]
async fn twenty_refreshes_are_forced_in_a_day_and_no_more() {
    // Long enough for two days; nothing is refused until the test says so.
    let (keeper, wechat) = (keeper(), Script::of(&vec![Token("dead", 7200); 300]));
    let dead = keeper.token(&wechat).await.unwrap();
    let forced = || wechat.asked().iter().filter(|forced| **forced).count();
    for _ in 0..30 {
        assert_eq!(keeper.replace(&dead, &wechat).await.unwrap(), None);
        pass(Duration::from_secs(60)).await;
    }
    assert_eq!(forced(), 20);
    pass(23 * HOUR).await;
    assert_eq!(keeper.replace(&dead, &wechat).await.unwrap(), None);
    assert_eq!(forced(), 20);
    pass(HOUR).await;
    assert_eq!(keeper.replace(&dead, &wechat).await.unwrap(), None);
    assert_eq!(forced(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_is_not_taken_for_an_answer_to_a_refusal() {
    let late = Duration::from_secs(2);
    let answers = [
        Token("dead", 7200),
        Late(late, "dead"),
        Token("dead", 200),
        Token("new", 7200),
    ];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let dead = keeper.token(&wechat).await.unwrap();
    pass(Duration::from_secs(7000)).await;
    keeper.token(&wechat).await.unwrap();
    let next = keeper.replace(&dead, &wechat).await.unwrap();
    assert_eq!(next, Some(token("new")));
    assert_eq!(wechat.asked(), [false, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_kept_while_there_is_no_other() {
    let answers = [
        Token("dead", 7200),
        Unreachable,
        Unreachable,
        Token("new", 7200),
    ];
    let (keeper, wechat) = (keeper(), Script::of(&answers));
    let dead = keeper.token(&wechat).await.unwrap();
    for _ in 0..5 {
        let error = keeper.replace(&dead, &wechat).await.unwrap_err();
        assert_eq!(error.status(), 503);
        assert_eq!(keeper.token(&wechat).await.unwrap(), dead);
    }
    assert_eq!(
        wechat.asked().len(),
        3,
        "from the second failure on there is a pause"
    );
    pass(Duration::from_secs(1)).await;
    let next = keeper.replace(&dead, &wechat).await.unwrap();
    assert_eq!(next, Some(token("new")));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_token_and_other_secrets_do_not() {
    let keepers = AccessTokenKeepers::default();
    let wechat = Script::of(&[Token("one", 7200), Token("two", 7200), Token("two", 7200)]);
    keepers
        .keeper(&app(&["s"]), &Metrics::new())
        .token(&wechat)
        .await
        .unwrap();
    let reloaded = keepers.keeper(&app(&["s"]), &Metrics::new());
    assert_eq!(reloaded.token(&wechat).await.unwrap(), token("one"));

    reloaded.forces().admit(Instant::now());
    let rotated = keepers.keeper(&app(&["new", "s"]), &Metrics::new());
    let two = rotated.token(&wechat).await.unwrap();
    assert_eq!(two, token("two"));
    assert_eq!(rotated.replace(&two, &wechat).await.unwrap(), None);
    assert_eq!(
        wechat.asked(),
        [false; 3],
        "WeChat's count of forces goes on"
    );
}
