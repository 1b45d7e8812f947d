"""S3PRL's distiller checkpoint <-> Transformers folder."""
