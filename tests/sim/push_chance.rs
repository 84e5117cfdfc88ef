//! Whatever happens to a device and its service, by chance, it is told of what comes.

use super::*;

/// The service answers what it was asked, if it is in the mood.
fn answer_all(world: &mut World, service: ClientId, mood: u64) {
    for request in published(world, service) {
        match mood {
            0 => answer(
                world,
                service,
                &request,
                "error",
                &error("wait", "conflict"),
            ),
            1 => {}
            _ => answer(world, service, &request, "result", ""),
        }
    }
}

/// What a phone does by chance, and what happens to it and to the service.
struct Chance {
    random: Random,
    service: ClientId,
    bob: ClientId,
    phone: Option<ClientId>,
    session: Option<String>,
}

impl Chance {
    fn begin(world: &mut World, seed: u64) -> Chance {
        Chance {
            random: Random::new(seed),
            service: world.attach(SERVICE, SECRET),
            bob: world.arrive("bob@example.org/b"),
            phone: None,
            session: None,
        }
    }

    fn step(&mut self, world: &mut World) {
        let phone = self.phone.filter(|phone| !world.client(*phone).ended);
        match (self.random.below(10), phone) {
            (0..=2, _) => say(world, self.bob, "m"),
            (3, None) => {
                let (phone, session) = world.log_in_managed(PHONE);
                world.tell(phone, "<presence/>");
                world.send(phone, &enable("chance", "s"));
                (self.phone, self.session) = (Some(phone), Some(session));
            }
            (4, None) => {
                if let Some(session) = self.session.take() {
                    self.phone = Some(world.resume(PHONE, &session, 0));
                }
            }
            (3, Some(phone)) => world.leave(phone),
            (4, Some(phone)) => world.vanish(phone),
            (5 | 6, _) => {
                let mood = self.random.below(4);
                answer_all(world, self.service, mood);
            }
            (7, _) => {
                world.vanish(self.service);
                world.run_for(SOON_MS);
                self.service = world.attach(SERVICE, SECRET);
            }
            (8, _) => {
                world.crash();
                world.run_for(SOON_MS);
                self.service = world.attach(SERVICE, SECRET);
                self.bob = world.arrive("bob@example.org/b");
            }
            _ => {
                let ms = self.random.below(2 * ANSWER_MS_MAX);
                world.run_for(ms);
            }
        }
    }
}

#[test]
fn whatever_happened_a_device_that_is_away_is_told_once_of_what_comes() {
    for seed in 0..60 {
        let settings = Settings {
            archive: seed % 2 == 0,
            ..settings(1 + (seed % 3) as u16, PushPolicy::default())
        };
        let mut world = world_of(seed, settings);
        let mut chance = Chance::begin(&mut world, seed);
        for _ in 0..50 {
            chance.step(&mut world);
            // One device is told of once at a time.
            let (targets, asked) = under_way(&world);
            assert!(
                targets <= 1 && asked <= 1,
                "seed {seed}: {targets}, {asked}"
            );
        }
        registered(&mut world, "last");
        for _ in 0..20 {
            answer_all(&mut world, chance.service, 2);
            world.run_for(ANSWER_MS_MAX);
        }
        assert_eq!(under_way(&world).1, 0, "seed {seed}");
        let left = stored(&mut world);
        say(&mut world, chance.bob, "m");
        let requests = published(&mut world, chance.service);
        let mut nodes: Vec<&str> = counts(&requests).into_iter().map(|it| it.0).collect();
        nodes.sort_unstable();
        let all = ["chance", "last"];
        let expected: Vec<&str> = all.into_iter().filter(|it| left.contains(it)).collect();
        assert_eq!(nodes, expected, "seed {seed}: {left}");
        for request in &requests {
            answer(&mut world, chance.service, request, "result", "");
        }
        world.run_for(ANSWER_MS_MAX);
        assert_eq!(under_way(&world), (expected.len(), 0), "seed {seed}");
    }
}
