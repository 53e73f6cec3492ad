//! Repositories of ECR.

use aws_sdk_ecr::{
    error::BuildError,
    operation::create_repository::CreateRepositoryError,
    types::{
        EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
    },
};
use rbuild_imagebuilder::registry::ecr::EcrRegistry;

use super::{Aws, AwsError};
use crate::args::registry::{Encryption, Pushing};

const CALL: &str = "CreateRepository";

/// What a repository that is created is like; what is not said is as ECR has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewRepository {
    pub(crate) scan_on_push: bool,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) immutable: bool,
}

impl NewRepository {
    /// As was asked for.
    pub(crate) fn of(args: &Pushing) -> Self {
        Self {
            scan_on_push: args.repository_scan_on_push,
            encryption: args.repository_encryption.clone(),
            immutable: args.repository_immutable,
        }
    }

    fn scanning(&self) -> Option<ImageScanningConfiguration> {
        let scanning = ImageScanningConfiguration::builder().scan_on_push(true).build();
        self.scan_on_push.then_some(scanning)
    }

    fn encryption(&self) -> Result<Option<EncryptionConfiguration>, BuildError> {
        let (kind, key) = match &self.encryption {
            None => return Ok(None),
            Some(Encryption::Aes256) => (EncryptionType::Aes256, None),
            Some(Encryption::Kms(key)) => (EncryptionType::Kms, key.clone()),
        };
        let builder = EncryptionConfiguration::builder().encryption_type(kind);
        builder.set_kms_key(key).build().map(Some)
    }
}

impl Aws {
    /// Creates a repository; that it is there already is as good.
    pub(crate) async fn create_repository(
        &self,
        registry: &EcrRegistry,
        name: &str,
        like: &NewRepository,
    ) -> Result<(), AwsError> {
        let ecr = self.ecr(registry).await?;
        let encryption = like
            .encryption()
            .map_err(|_| AwsError::Incomplete { call: CALL, what: "encryptionConfiguration" })?;
        let request = ecr
            .client
            .create_repository()
            .registry_id(&registry.account)
            .repository_name(name)
            .set_image_tag_mutability(like.immutable.then_some(ImageTagMutability::Immutable))
            .set_image_scanning_configuration(like.scanning())
            .set_encryption_configuration(encryption);
        let Err(err) = request.send().await else { return Ok(()) };
        match err.as_service_error() {
            Some(CreateRepositoryError::RepositoryAlreadyExistsException(_)) => Ok(()),
            _ => Err(self.failed(CALL, err).await),
        }
    }
}
