//! Directed presence (RFC 6121 4.6) of strangers whom a crash takes, to sessions that survive it:
//! nobody else knows that they are to be found gone.

use sim::steps::{counted, homes, message};
use sim::{ClientId, Element, Faults, World};
use xmpp::Settings;
use xmpp::strangers::STRANGERS_REST_MS;

/// Bob, whose session survives, and a stranger at home on his shard or on another.
struct Scene {
    world: World,
    bare: String,
    bob: ClientId,
    session: String,
    /// What bob's client had.
    had: Vec<Element>,
    stranger: String,
}

impl Scene {
    fn new(seed: u64, shard: u16) -> Scene {
        let settings = Settings {
            shards: 2,
            ..Settings::for_tests("example.org")
        };
        let mut world = World::new(seed, settings, Faults::calm());
        let bare = homes(2, 0).next().expect("there are some");
        let stranger = homes(2, shard).find(|name| *name != bare);
        let stranger = stranger.expect("there are more");
        for name in [&bare, &stranger] {
            world.add_account(name, "secret");
        }
        let (bob, session) = world.log_in_managed(&format!("{bare}/b"));
        world.tell(bob, "<presence/>");
        let had = world.received(bob);
        let stranger = format!("{stranger}/s");
        Scene {
            world,
            bare,
            bob,
            session,
            had,
            stranger,
        }
    }

    /// The stranger's presence to bob.
    fn says(&self, type_: &str) -> String {
        format!("<presence to='{}/b'{type_}/>", self.bare)
    }

    /// What bob hears of the stranger, by the types of his presence.
    fn heard(&mut self) -> Vec<String> {
        self.world.run_for(2 * STRANGERS_REST_MS);
        let received = self.world.received(self.bob);
        let of_stranger = |it: &&Element| it.name == "presence" && it.attr("from") == self.stranger;
        let types = received.iter().filter(of_stranger);
        let types = types.map(|it| it.attr("type").to_owned()).collect();
        self.had.extend(received);
        types
    }

    /// Bob's client acknowledges all that it had.
    fn acknowledge(&mut self) {
        let h = counted(&self.had);
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>");
        self.world.tell(self.bob, &ack);
        self.world.run_for(2 * STRANGERS_REST_MS);
    }

    fn crash(&mut self) {
        self.world.crash();
        self.world.run();
    }

    fn resume(&mut self) {
        let full = format!("{}/b", self.bare);
        let h = counted(&self.had);
        self.bob = self.world.resume(&full, &self.session, h);
        assert!(self.world.client(self.bob).resumed.is_some());
    }
}

const SCENES: [(u64, u16); 4] = [(1, 0), (2, 1), (3, 0), (4, 1)];

#[test]
fn a_stranger_whom_a_crash_took_is_found_gone_once() {
    for (seed, shard) in SCENES {
        for is_full in [true, false] {
            let mut scene = Scene::new(seed, shard);
            let says = match is_full {
                true => scene.says(""),
                false => format!("<presence to='{}'/>", scene.bare),
            };
            let stranger = scene.world.log_in(&scene.stranger);
            scene.world.tell(stranger, &says);
            assert_eq!(scene.heard(), [""]);
            // His client has it, whether or not it says so.
            if seed % 2 == 0 {
                scene.acknowledge();
            }
            scene.crash();
            scene.resume();
            assert_eq!(scene.heard(), ["unavailable"], "seed {seed}");
            scene.acknowledge();
            scene.crash();
            scene.resume();
            assert_eq!(scene.heard(), [""; 0], "seed {seed}");
        }
    }
}

/// What he says to a session that sleeps in storage does not wake it, but he is asked then.
#[test]
fn a_stranger_who_is_back_before_is_what_his_new_session_says() {
    for (seed, shard) in SCENES {
        for (says_so, is_awake) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut scene = Scene::new(seed, shard);
            let says = scene.says("");
            let stranger = scene.world.log_in(&scene.stranger);
            scene.world.tell(stranger, &says);
            assert_eq!(scene.heard(), [""]);
            scene.crash();
            let stranger = scene.world.arrive(&scene.stranger);
            if is_awake {
                let wakes = message("normal", &scene.bare, "m");
                scene.world.tell(stranger, &wakes);
            }
            if says_so {
                scene.world.tell(stranger, &says);
            }
            scene.resume();
            let expected: &[&str] = match (says_so, is_awake) {
                (true, true) => &[""],
                (true, false) => &[],
                (false, _) => &["unavailable"],
            };
            assert_eq!(scene.heard(), expected, "seed {seed}");
            scene.world.leave(stranger);
            let expected: &[&str] = if says_so { &["unavailable"] } else { &[] };
            assert_eq!(scene.heard(), expected, "seed {seed}");
        }
    }
}

/// He says what he is himself: nothing where that has not changed, or that his time is over.
#[test]
fn of_a_stranger_whose_session_survives_nothing_is_said_before_that_ends() {
    for (seed, shard) in SCENES {
        for (is_back, is_first) in [(true, true), (true, false), (false, false)] {
            let mut scene = Scene::new(seed, shard);
            let (stranger, session) = scene.world.log_in_managed(&scene.stranger);
            scene.world.tell(stranger, &scene.says(""));
            let h = counted(&scene.world.received(stranger));
            assert_eq!(scene.heard(), [""]);
            scene.crash();
            if is_first {
                scene.world.resume(&scene.stranger, &session, h);
            }
            scene.resume();
            assert_eq!(scene.heard(), [""; 0], "seed {seed}");
            if is_back && !is_first {
                scene.world.resume(&scene.stranger, &session, h);
            }
            scene.world.run_for(400_000);
            let expected: &[&str] = if is_back { &[] } else { &["unavailable"] };
            assert_eq!(scene.heard(), expected, "seed {seed}");
        }
    }
}

/// XEP-0191 3.3: whoever of the two blocks the other, that ends it, and a crash changes nothing.
#[test]
fn of_a_stranger_who_blocks_or_is_blocked_nothing_is_said_after_a_crash() {
    for (seed, shard) in SCENES {
        for is_blocked in [true, false] {
            let mut scene = Scene::new(seed, shard);
            let stranger = scene.world.log_in(&scene.stranger);
            scene.world.tell(stranger, &scene.says(""));
            assert_eq!(scene.heard(), [""]);
            let (blocks, jid) = match is_blocked {
                true => (scene.bob, scene.stranger.clone()),
                false => (stranger, scene.bare.clone()),
            };
            let item = format!("<block xmlns='urn:xmpp:blocking'><item jid='{jid}'/></block>");
            let block = format!("<iq type='set' id='b'>{item}</iq>");
            scene.world.tell(blocks, &block);
            let expected: &[&str] = if is_blocked { &[] } else { &["unavailable"] };
            assert_eq!(scene.heard(), expected, "seed {seed}");
            scene.acknowledge();
            scene.crash();
            scene.resume();
            assert_eq!(scene.heard(), [""; 0], "seed {seed}");
        }
    }
}

/// Where a crash takes the word of who is gone, before the client has it, he is found gone.
#[test]
fn who_said_that_he_is_gone_is_gone_whether_or_not_the_client_had_that() {
    for (seed, shard) in SCENES {
        for is_there in [true, false] {
            let mut scene = Scene::new(seed, shard);
            let stranger = scene.world.log_in(&scene.stranger);
            scene.world.tell(stranger, &scene.says(""));
            assert_eq!(scene.heard(), [""]);
            if !is_there {
                scene.world.vanish(scene.bob);
                scene.world.run();
            }
            let says = scene.says(" type='unavailable'");
            scene.world.tell(stranger, &says);
            if is_there {
                assert_eq!(scene.heard(), ["unavailable"]);
                scene.acknowledge();
            }
            scene.crash();
            scene.resume();
            let expected: &[&str] = if is_there { &[] } else { &["unavailable"] };
            assert_eq!(scene.heard(), expected, "seed {seed}");
        }
    }
}

/// He is a contact by then, and is what contacts are.
#[test]
fn who_is_a_contact_is_no_stranger() {
    for (seed, shard) in SCENES {
        let mut scene = Scene::new(seed, shard);
        let contact = scene.stranger.split('/').next().map(str::to_owned);
        let contact = contact.expect("a full JID");
        scene.world.befriend(&scene.bare, &contact);
        scene.crash();
        scene.resume();
        let writes = scene.world.session_writes();
        let stranger = scene.world.arrive(&scene.stranger);
        scene.world.tell(stranger, &scene.says(""));
        assert!(scene.heard().contains(&String::new()));
        assert_eq!(scene.world.session_writes(), writes);
    }
}

/// A session is written as a whole, and not as often as a stranger likes; what its own client sends
/// is acknowledged all the same.
#[test]
fn a_stranger_has_a_session_written_few_times_and_holds_no_acknowledgement_up() {
    for (seed, shard) in SCENES {
        let mut scene = Scene::new(seed, shard);
        let stranger = scene.world.log_in(&scene.stranger);
        scene.world.faults.disk_us = (20_000, 20_000);
        let writes = scene.world.session_writes();
        let (said, gone) = (scene.says(""), scene.says(" type='unavailable'"));
        let mut handled = 0;
        for number in 1..=200 {
            scene.world.send(stranger, &said);
            scene.world.run_for(5);
            scene.world.send(stranger, &gone);
            scene.world.run_for(5);
            scene.had.extend(scene.world.received(scene.bob));
            let h = counted(&scene.had);
            let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>");
            let ask = "<presence to='example.org'/><r xmlns='urn:xmpp:sm:3'/>";
            scene.world.send(scene.bob, &format!("{ack}{ask}"));
            if number % 50 == 0 {
                scene.world.run_for(40);
                let received = scene.world.received(scene.bob);
                let answers = received.iter().filter(|it| it.name == "a");
                let last = answers.filter_map(|it| it.attr("h").parse().ok()).max();
                let last: u32 = last.expect("an answer");
                assert!(last > handled + 40, "{last} after {handled}");
                handled = last;
                scene.had.extend(received);
            }
        }
        let writes = scene.world.session_writes() - writes;
        let ms = 200 * 10 + 4 * 40;
        let writes_max = 2 + (ms / STRANGERS_REST_MS) as usize;
        assert!((3..=writes_max).contains(&writes), "{writes}");
        scene.world.run_for(1_000);
        scene.heard();
        scene.acknowledge();
    }
}
