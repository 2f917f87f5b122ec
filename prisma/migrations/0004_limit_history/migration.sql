-- CreateTable
CREATE TABLE "limit_changes" (
    "provider_id" TEXT NOT NULL,
    "number" BIGSERIAL NOT NULL,
    "since" TIMESTAMPTZ(6) NOT NULL,
    "max_parallel_requests" INTEGER NOT NULL,
    "requests_per_minute" INTEGER NOT NULL,
    "tokens_per_minute" INTEGER,

    CONSTRAINT "limit_changes_pkey" PRIMARY KEY ("provider_id", "number")
);

-- AddForeignKey
ALTER TABLE "limit_changes" ADD CONSTRAINT "limit_changes_provider_id_fkey"
  FOREIGN KEY ("provider_id") REFERENCES "llm_providers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- ---------------------------------------------------------------------------
-- What Prisma cannot express
-- ---------------------------------------------------------------------------

-- What was in force before this migration is not known but for its last state.
INSERT INTO "limit_changes" ("provider_id", "since", "max_parallel_requests", "requests_per_minute", "tokens_per_minute")
SELECT "id", "created_at" AT TIME ZONE 'UTC', "max_parallel_requests", "requests_per_minute", "tokens_per_minute"
  FROM "llm_providers" ORDER BY "id";

CREATE TRIGGER "limit_changes_append_only" BEFORE UPDATE ON "limit_changes"
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();

-- Writes down what each start was admitted under: a start at `since` or later under these limits, one before it under
-- those before.
--
-- That is so although a change takes effect when its transaction commits, and the clock is read before that. The row of
-- the provider is locked from its UPDATE, after which this trigger runs, to the commit, and claim_requests holds the
-- same lock from before it reads the limits and the clock until its starts are committed. So a claim lies whole before
-- the UPDATE: it saw the limits of before, and read its clock before this one is read. Or it lies whole after the
-- commit: it sees these limits, and reads its clock after this one was. In between, while a change is written and not
-- yet committed, nothing starts, and a change that is rolled back leaves no line.
--
-- It needs the clock of the claims, which never goes back, and that as it is now: transaction_timestamp() may lie before
-- starts that the UPDATE had to wait for, and in a transaction that reads repeatably (`tollgate apply`) the provider's
-- own clock, limit_states.clock, may be that of before them. Only a claim that waited for the lock for longer than half a
-- second, behind this very change, may put its starts before it: by then their permits have ended, and none is sent.
CREATE FUNCTION append_limit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' OR (OLD."max_parallel_requests", OLD."requests_per_minute", OLD."tokens_per_minute")
                         IS DISTINCT FROM (NEW."max_parallel_requests", NEW."requests_per_minute", NEW."tokens_per_minute") THEN
    INSERT INTO "limit_changes" ("provider_id", "since", "max_parallel_requests", "requests_per_minute", "tokens_per_minute")
    SELECT NEW."id", greatest(steady_now(), (SELECT "clock" FROM "limit_states" WHERE "provider_id" = NEW."id")),
           NEW."max_parallel_requests", NEW."requests_per_minute", NEW."tokens_per_minute";
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "llm_providers_append_limit_change"
  AFTER INSERT OR UPDATE OF "max_parallel_requests", "requests_per_minute", "tokens_per_minute" ON "llm_providers"
  FOR EACH ROW EXECUTE FUNCTION append_limit_change();
