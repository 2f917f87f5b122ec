-- ---------------------------------------------------------------------------
-- What Prisma cannot express
-- ---------------------------------------------------------------------------

-- The list of a workspace's videos, which are few among its requests, from either end.
CREATE INDEX "model_requests_videos" ON "model_requests"("workspace_id", "id") WHERE "operation" = 'VIDEO';
