-- CreateEnum
CREATE TYPE "AccessRole" AS ENUM ('ADMIN', 'OPERATOR', 'READER');
CREATE TYPE "LlmModelStatus" AS ENUM ('ACTIVE', 'INACTIVE', 'DEPRECATED');
CREATE TYPE "LlmModelType" AS ENUM ('TEXT', 'CODE', 'EMBEDDING', 'RERANK', 'IMAGE', 'VIDEO', 'SPEECH_TO_TEXT', 'TEXT_TO_SPEECH', 'MODERATION');
CREATE TYPE "UsageUnit" AS ENUM ('INPUT_TOKENS', 'OUTPUT_TOKENS', 'CACHE_READ_TOKENS', 'CACHE_WRITE_TOKENS', 'IMAGES', 'CHARACTERS', 'SECONDS', 'SEARCHES');

-- CreateTable
CREATE TABLE "workspaces" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "workspaces_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "access_tokens" (
    "id" TEXT NOT NULL,
    "workspace_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "role" "AccessRole" NOT NULL,
    "token_hash" TEXT NOT NULL,
    "token_prefix" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ(6),
    "revoked_at" TIMESTAMPTZ(6),
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "access_tokens_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "llm_providers" (
    "id" TEXT NOT NULL,
    "workspace_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "display_name" TEXT NOT NULL,
    "adapter" TEXT NOT NULL DEFAULT 'openai',
    "base_url" TEXT,
    "max_parallel_requests" INTEGER NOT NULL DEFAULT 1,
    "requests_per_minute" INTEGER NOT NULL DEFAULT 60,
    "tokens_per_minute" INTEGER,
    "is_enabled" BOOLEAN NOT NULL DEFAULT true,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "llm_providers_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "llm_models" (
    "id" TEXT NOT NULL,
    "workspace_id" TEXT NOT NULL,
    "provider_id" TEXT NOT NULL,
    "model_id" TEXT NOT NULL,
    "display_name" TEXT NOT NULL,
    "description" TEXT,
    "model_type" "LlmModelType" NOT NULL DEFAULT 'TEXT',
    "capabilities" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "context_window" INTEGER,
    "max_output_tokens" INTEGER,
    "cost_input_per_million" DECIMAL(20,10),
    "cost_output_per_million" DECIMAL(20,10),
    "status" "LlmModelStatus" NOT NULL DEFAULT 'ACTIVE',
    "is_default" BOOLEAN NOT NULL DEFAULT false,
    "parameter_rules" JSONB,
    "allows_unknown_parameters" BOOLEAN NOT NULL DEFAULT false,
    "connect_timeout_seconds" DOUBLE PRECISION,
    "read_timeout_seconds" DOUBLE PRECISION,
    "total_timeout_seconds" DOUBLE PRECISION,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "llm_models_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "system_settings" (
    "id" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "value" JSONB NOT NULL,
    "updated_at" TIMESTAMP(3) NOT NULL,

    CONSTRAINT "system_settings_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "model_prices" (
    "id" TEXT NOT NULL,
    "model_id" TEXT NOT NULL,
    "unit" "UsageUnit" NOT NULL,
    "price_per_million" DECIMAL(20,10),
    "currency" TEXT NOT NULL DEFAULT 'USD',
    "effective_at" TIMESTAMPTZ(6) NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "model_prices_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "revisions" (
    "subject" TEXT NOT NULL,
    "number" BIGINT NOT NULL DEFAULT 0,
    "updated_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "revisions_pkey" PRIMARY KEY ("subject")
);

CREATE TABLE "seed_records" (
    "kind" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "source" TEXT NOT NULL,
    "values" JSONB NOT NULL,
    "updated_at" TIMESTAMPTZ(6) NOT NULL,

    CONSTRAINT "seed_records_pkey" PRIMARY KEY ("kind", "key")
);

-- CreateIndex
CREATE UNIQUE INDEX "workspaces_name_key" ON "workspaces"("name");
CREATE UNIQUE INDEX "access_tokens_token_hash_key" ON "access_tokens"("token_hash");
CREATE UNIQUE INDEX "llm_providers_workspace_id_name_key" ON "llm_providers"("workspace_id", "name");
CREATE INDEX "llm_models_provider_id_idx" ON "llm_models"("provider_id");
CREATE INDEX "llm_models_status_idx" ON "llm_models"("status");
CREATE UNIQUE INDEX "llm_models_provider_id_model_id_key" ON "llm_models"("provider_id", "model_id");
CREATE UNIQUE INDEX "system_settings_key_key" ON "system_settings"("key");
CREATE UNIQUE INDEX "model_prices_model_id_unit_effective_at_key" ON "model_prices"("model_id", "unit", "effective_at");

-- AddForeignKey
ALTER TABLE "access_tokens" ADD CONSTRAINT "access_tokens_workspace_id_fkey"
  FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "llm_providers" ADD CONSTRAINT "llm_providers_workspace_id_fkey"
  FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_workspace_id_fkey"
  FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_provider_id_fkey"
  FOREIGN KEY ("provider_id") REFERENCES "llm_providers"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "model_prices" ADD CONSTRAINT "model_prices_model_id_fkey"
  FOREIGN KEY ("model_id") REFERENCES "llm_models"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- ---------------------------------------------------------------------------
-- What Prisma cannot express
-- ---------------------------------------------------------------------------

-- At most one default model per provider, and a deprecated model is never it.
CREATE UNIQUE INDEX "llm_models_one_default_per_provider" ON "llm_models"("provider_id") WHERE "is_default";
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_default_not_deprecated"
  CHECK (NOT ("is_default" AND "status" = 'DEPRECATED'));

-- Costs are never negative, and 'NaN' is not a price.
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_cost_input_not_negative"
  CHECK ("cost_input_per_million" >= 0 AND "cost_input_per_million" <> 'NaN');
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_cost_output_not_negative"
  CHECK ("cost_output_per_million" >= 0 AND "cost_output_per_million" <> 'NaN');
ALTER TABLE "model_prices" ADD CONSTRAINT "model_prices_price_not_negative"
  CHECK ("price_per_million" >= 0 AND "price_per_million" <> 'NaN');

-- A limit is at least one.
ALTER TABLE "llm_providers" ADD CONSTRAINT "llm_providers_max_parallel_requests_at_least_one"
  CHECK ("max_parallel_requests" >= 1);
ALTER TABLE "llm_providers" ADD CONSTRAINT "llm_providers_requests_per_minute_at_least_one"
  CHECK ("requests_per_minute" >= 1);
ALTER TABLE "llm_providers" ADD CONSTRAINT "llm_providers_tokens_per_minute_at_least_one"
  CHECK ("tokens_per_minute" >= 1);
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_context_window_at_least_one"
  CHECK ("context_window" >= 1);
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_max_output_tokens_at_least_one"
  CHECK ("max_output_tokens" >= 1);

-- A timeout is more than nothing.
ALTER TABLE "llm_models" ADD CONSTRAINT "llm_models_timeouts_positive"
  CHECK ("connect_timeout_seconds" > 0 AND "read_timeout_seconds" > 0 AND "total_timeout_seconds" > 0);

-- A model keeps its modelId and its provider for life: requests and ledger lines refer to them by name.
CREATE FUNCTION refuse_model_identity_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'modelId and providerId of a model cannot be changed after creation'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'llm_models_identity_immutable', TABLE = 'llm_models';
END $$;
CREATE TRIGGER "llm_models_identity_immutable" BEFORE UPDATE ON "llm_models" FOR EACH ROW
  WHEN (OLD."model_id" IS DISTINCT FROM NEW."model_id" OR OLD."provider_id" IS DISTINCT FROM NEW."provider_id")
  EXECUTE FUNCTION refuse_model_identity_change();

-- A change of a model's list price appends a dated price. An instant's later change of the same price replaces
-- nothing: clock_timestamp() moves on within a transaction, so each append has a time of its own.
CREATE FUNCTION append_list_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' OR OLD."cost_input_per_million" IS DISTINCT FROM NEW."cost_input_per_million" THEN
    INSERT INTO "model_prices" ("id", "model_id", "unit", "price_per_million", "effective_at")
    VALUES ('p' || replace(gen_random_uuid()::text, '-', ''), NEW."id", 'INPUT_TOKENS', NEW."cost_input_per_million", clock_timestamp());
  END IF;
  IF TG_OP = 'INSERT' OR OLD."cost_output_per_million" IS DISTINCT FROM NEW."cost_output_per_million" THEN
    INSERT INTO "model_prices" ("id", "model_id", "unit", "price_per_million", "effective_at")
    VALUES ('p' || replace(gen_random_uuid()::text, '-', ''), NEW."id", 'OUTPUT_TOKENS', NEW."cost_output_per_million", clock_timestamp());
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "llm_models_append_list_price"
  AFTER INSERT OR UPDATE OF "cost_input_per_million", "cost_output_per_million" ON "llm_models"
  FOR EACH ROW EXECUTE FUNCTION append_list_price();

-- Yesterday's bill never changes: a dated price is only ever added, or goes with its model.
CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: add a new row instead', TG_TABLE_NAME USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME;
END $$;
CREATE TRIGGER "model_prices_append_only" BEFORE UPDATE ON "model_prices"
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();

-- Each change raises its subject's revision in its own transaction and announces it at commit. The row lock on the
-- revision orders concurrent changes: a higher number was committed later.
CREATE FUNCTION raise_revision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE new_number bigint;
BEGIN
  UPDATE "revisions" SET "number" = "number" + 1, "updated_at" = clock_timestamp()
   WHERE "subject" = TG_ARGV[0] RETURNING "number" INTO new_number;
  PERFORM pg_notify('tollgate_' || TG_ARGV[0], new_number::text);
  RETURN NULL;
END $$;
CREATE TRIGGER "llm_providers_raise_revision" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "llm_providers"
  FOR EACH STATEMENT EXECUTE FUNCTION raise_revision('catalog');
CREATE TRIGGER "llm_models_raise_revision" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "llm_models"
  FOR EACH STATEMENT EXECUTE FUNCTION raise_revision('catalog');
-- Not where the list price's own trigger appends: the change of the model raises the revision once, not per row.
CREATE TRIGGER "model_prices_raise_revision" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "model_prices"
  FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION raise_revision('catalog');
CREATE TRIGGER "system_settings_raise_revision" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "system_settings"
  FOR EACH STATEMENT EXECUTE FUNCTION raise_revision('catalog');
CREATE TRIGGER "access_tokens_raise_revision" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "access_tokens"
  FOR EACH STATEMENT EXECUTE FUNCTION raise_revision('access');

INSERT INTO "revisions" ("subject", "number", "updated_at") VALUES ('catalog', 1, now()), ('access', 1, now());
INSERT INTO "workspaces" ("id", "name", "updated_at") VALUES ('default', 'default', now());
