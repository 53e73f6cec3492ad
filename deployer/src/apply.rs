//! Makes the changes of a plan, in order.
//!
//! **Architecture invariant:** nothing is decided here. What a plan does not say is not done.

use thiserror::Error;

use crate::{
    definition::TaskDefinition,
    ecs::{Ecs, EcsError},
    event::Event,
    plan::{Change, Plan},
};

/// Why a plan was not carried through.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The task definition was not registered, or nobody knows; the service was not touched.
    #[error(
        "ECS did not confirm that the task definition `{family}` is registered; the service is as it was"
    )]
    Register {
        /// The task definition's name.
        family: String,
        /// What ECS said.
        #[source]
        source: EcsError,
    },
    /// The task definition is registered; the service was not updated, or nobody knows.
    #[error("ECS did not confirm that the service `{service}` uses `{arn}`, which is registered")]
    Update {
        /// The service.
        service: String,
        /// The ARN of the revision that it should use.
        arn: String,
        /// What ECS said.
        #[source]
        source: EcsError,
    },
}

/// Makes the changes of `plan`, tells `emit` of each, and returns the ARN of the task definition
/// that the service then uses.
pub async fn apply(
    plan: &Plan,
    definition: &TaskDefinition,
    ecs: &impl Ecs,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<String, ApplyError> {
    let mut arn = plan.from.clone();
    for change in &plan.changes {
        match change {
            Change::Register { family } => arn = register(family, definition, ecs, emit).await?,
            Change::UpdateService { .. } => update(plan, &arn, ecs, emit).await?,
        }
    }
    Ok(arn)
}

async fn register(
    family: &str,
    definition: &TaskDefinition,
    ecs: &impl Ecs,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<String, ApplyError> {
    let registered = ecs
        .register_task_definition(definition)
        .await
        .map_err(|source| ApplyError::Register { family: family.to_owned(), source })?;
    emit(Event::Registered { arn: &registered.arn });
    // ECS does not refuse a field that it does not know, such as a misspelt one: it drops it.
    for field in definition.field_paths() {
        if !registered.fields.contains(&field) {
            emit(Event::FieldIgnored { field: &field });
        }
    }
    Ok(registered.arn)
}

async fn update(
    plan: &Plan,
    arn: &str,
    ecs: &impl Ecs,
    emit: &mut dyn FnMut(Event<'_>),
) -> Result<(), ApplyError> {
    let (cluster, service) = (plan.cluster.as_str(), plan.service.as_str());
    ecs.update_service(cluster, service, arn).await.map_err(|source| ApplyError::Update {
        service: service.to_owned(),
        arn: arn.to_owned(),
        source,
    })?;
    emit(Event::ServiceUpdated { cluster, service, arn });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        definition::Container,
        ecs::{Registered, Service},
        plan,
    };

    /// Keeps a log of the calls, and fails at one of them.
    struct FakeEcs {
        fail_at: Option<usize>,
        calls: Mutex<Vec<String>>,
    }

    impl FakeEcs {
        fn call(&self, call: &'static str, what: &str) -> Result<(), EcsError> {
            let mut calls = self.calls.lock().unwrap();
            calls.push(format!("{call} {what}"));
            if self.fail_at == Some(calls.len()) {
                let (code, message) = ("ServerException".to_owned(), "a fault".to_owned());
                return Err(EcsError::NotDone { call, code, message });
            }
            Ok(())
        }
    }

    impl Ecs for FakeEcs {
        async fn describe_service(
            &self,
            cluster: &str,
            service: &str,
        ) -> Result<Option<Service>, EcsError> {
            self.call("DescribeServices", &format!("{cluster}/{service}"))?;
            Ok(Some(Service {
                status: "ACTIVE".into(),
                controller: "ECS".into(),
                task_definition: Some("arn/shop:7".into()),
            }))
        }

        async fn describe_task_definition(&self, arn: &str) -> Result<Vec<Container>, EcsError> {
            self.call("DescribeTaskDefinition", arn)?;
            Ok(vec![Container { name: "web".into(), image: "shop:v1".into() }])
        }

        async fn register_task_definition(
            &self,
            definition: &TaskDefinition,
        ) -> Result<Registered, EcsError> {
            self.call("RegisterTaskDefinition", definition.family())?;
            let fields = [
                "family",
                "containerDefinitions",
                "containerDefinitions[web].name",
                "containerDefinitions[web].image",
            ];
            Ok(Registered { arn: "arn/shop:8".into(), fields: fields.map(str::to_owned).to_vec() })
        }

        async fn update_service(
            &self,
            cluster: &str,
            service: &str,
            arn: &str,
        ) -> Result<(), EcsError> {
            self.call("UpdateService", &format!("{cluster}/{service} {arn}"))
        }
    }

    /// Plans and applies, with the call of this number failing.
    async fn deploy(
        ecs: &FakeEcs,
        log: &mut Vec<String>,
    ) -> Result<String, Box<dyn std::error::Error>> {
        let definition = TaskDefinition::parse(
            r#"{"family": "shop", "volums": [1], "volumes": [],
                "containerDefinitions": [
                    {"name": "web", "image": "shop:v2", "enviroment": [1], "links": []}]}"#,
        )?;
        let found = ecs.describe_service("prod", "web").await?;
        let rolling = plan::rolling("prod", "web", found)?;
        let current = ecs.describe_task_definition(rolling.task_definition()).await?;
        let plan = plan::plan(rolling, &current, &definition);
        let emit = &mut |event: Event<'_>| log.push(format!("{event:?}"));
        Ok(apply(&plan, &definition, ecs, emit).await?)
    }

    #[track_caller]
    fn check(fail_at: Option<usize>, want: Expect) {
        let ecs = FakeEcs { fail_at, calls: Mutex::default() };
        let mut events = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = match runtime.block_on(deploy(&ecs, &mut events)) {
            Ok(arn) => format!("= {arn}"),
            Err(err) => match err.source() {
                Some(source) => format!("! {err}\n! {source}"),
                None => format!("! {err}"),
            },
        };
        let mut lines = ecs.calls.into_inner().unwrap();
        lines.extend(events);
        lines.push(outcome);
        want.assert_eq(&format!("{}\n", lines.join("\n")));
    }

    #[test]
    fn a_plan_is_carried_through() {
        check(
            None,
            expect![[r#"
                DescribeServices prod/web
                DescribeTaskDefinition arn/shop:7
                RegisterTaskDefinition shop
                UpdateService prod/web arn/shop:8
                Registered { arn: "arn/shop:8" }
                FieldIgnored { field: "volums" }
                FieldIgnored { field: "containerDefinitions[web].enviroment" }
                ServiceUpdated { cluster: "prod", service: "web", arn: "arn/shop:8" }
                = arn/shop:8
            "#]],
        );
    }

    #[test]
    fn a_call_that_fails_is_the_last_one() {
        check(
            Some(1),
            expect![[r#"
            DescribeServices prod/web
            ! ECS did not do DescribeServices: ServerException: a fault
        "#]],
        );
        check(
            Some(2),
            expect![[r#"
            DescribeServices prod/web
            DescribeTaskDefinition arn/shop:7
            ! ECS did not do DescribeTaskDefinition: ServerException: a fault
        "#]],
        );
        check(
            Some(3),
            expect![[r#"
            DescribeServices prod/web
            DescribeTaskDefinition arn/shop:7
            RegisterTaskDefinition shop
            ! ECS did not confirm that the task definition `shop` is registered; the service is as it was
            ! ECS did not do RegisterTaskDefinition: ServerException: a fault
        "#]],
        );
    }

    #[test]
    fn what_was_registered_is_told_when_the_service_is_not_updated() {
        check(
            Some(4),
            expect![[r#"
            DescribeServices prod/web
            DescribeTaskDefinition arn/shop:7
            RegisterTaskDefinition shop
            UpdateService prod/web arn/shop:8
            Registered { arn: "arn/shop:8" }
            FieldIgnored { field: "volums" }
            FieldIgnored { field: "containerDefinitions[web].enviroment" }
            ! ECS did not confirm that the service `web` uses `arn/shop:8`, which is registered
            ! ECS did not do UpdateService: ServerException: a fault
        "#]],
        );
    }
}
